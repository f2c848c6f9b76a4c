"""What the end-to-end tests are built of.

Nothing in here shares code with the pipeline: records are encoded by fastavro, windows are counted by an oracle of
our own, objects are read by pyarrow. Where both sides agree, they agree on the formats of the documentation.

The way of an event: `schemas` and `broken` say what is written, `stream` mixes it, `producer` sends it and remembers
where it went; `kappa_process` runs the pipeline; `archive`, `dead_letters`, `hot_store` read what came out; `oracle`
says what should have; `verification` compares, record by record.
"""
