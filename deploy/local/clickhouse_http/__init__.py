"""The ClickHouse engine behind ClickHouse's HTTP interface.

For tests, CI and `kappa demo`, where no ClickHouse server can be installed: the
engine is the real one (the PyPI package chdb-core), only the HTTP layer is ours.
It has no users, no replication and no native protocol.

`statement` reads what kind of statement a request holds, `engine` runs it,
`body` reads request bodies, `compression` speaks ClickHouse's compressed blocks,
`server` ties them to HTTP.
"""
