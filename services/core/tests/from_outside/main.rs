//! The crate as those see it who use it: decoder, contract, partition, snapshots. One program, so that it is linked once.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "a test may stop where it stands")]

mod support;

mod contract_rules;
mod decode_extra_and_limits;
mod decode_properties;
mod decode_resolution;
mod decode_schemas;
mod decode_types;
mod duplicates_and_quality;
mod nothing_but_poison;
mod schema_changes;
mod sensor_sites;
mod snapshot_format;
