//! The pure half of Kappa: what a log prefix means. No I/O, no clock, no randomness; the dependencies prove it.
//!
//! # A tour, in the order in which a record travels
//!
//! | module | what happens there |
//! |---|---|
//! | [`record`] | records as the log delivers them, a batch in one arena |
//! | [`decode`] | a decoder compiled for each writer's schema: from Avro bytes to columns, one whole record or none |
//! | [`reject`] | why a record is refused: a closed list of reasons, and a sentence |
//! | [`contract`] | whether a decoded record is a valid event |
//! | [`duplicates`] | whether it was there already |
//! | [`windows`], [`anomaly`] | what it adds to its window, and whether it is unusual |
//! | [`quality`] | what a segment's records are worth, by site and metric |
//! | [`archive`] | the columns of the archive, and where each record came from |
//! | [`digest`] | the records of a segment in 128 bits |
//! | [`snapshot`] | the bytes of a state |
//! | [`partition`] | **all of it as one state machine**: [`partition::PartitionState`] |
//! | [`rows`] | what leaves for the hot store |
//!
//! Begin with [`partition::PartitionState::process`], which takes records in, and [`partition::PartitionState::cut`], which ends a
//! segment. Everything that they say is a function of the records, so two owners of a partition, or a replay after a crash, say
//! the same; `services/pipeline` decides only *when* they are asked.

pub mod anomaly;
pub mod archive;
pub mod contract;
pub mod decode;
pub mod digest;
pub mod duplicates;
pub mod partition;
mod prefetch;
pub mod quality;
pub mod record;
pub mod reject;
pub mod rows;
pub mod snapshot;
pub mod windows;
