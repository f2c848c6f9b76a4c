//! Kappa: a log of Avro records in; one-minute windows and anomalies in ClickHouse, Parquet on an object store, and a
//! dead letter for every record that is not valid. Each exactly once, whatever crashes.
//!
//! # A tour, in the order in which an event travels
//!
//! | module | what happens there |
//! |---|---|
//! | [`ingest`] | records are taken from Kafka in batches and copied once |
//! | [`registry`] | which schema they were written with |
//! | [`kappa_core::decode`] | from Avro bytes to columns, one whole record or none |
//! | [`kappa_core::contract`] | whether a record is a valid event |
//! | [`kappa_core::duplicates`] | whether it was there already |
//! | [`kappa_core::windows`], [`kappa_core::anomaly`] | what it adds to its window, and whether it is unusual |
//! | [`partition`] | **the protocol**: segments, the five steps of a seal, adopting, restoring |
//! | [`archive`] | segments as Parquet, and their footers |
//! | [`dead_letters`] | rejected records as Parquet |
//! | [`hot_store`] | rows to ClickHouse |
//! | [`checkpoint`] | state snapshots |
//!
//! Around them: [`run`] composes all of it, [`config`], [`contract`] and [`cli`] are what a person touches, [`ops`] what an operator
//! watches, [`verify`] the proof of it on anybody's data, [`dlq`] what becomes of the dead letters, [`demo`] the whole
//! thing on a laptop. [`memory`] is the byte budget, [`allocator`] where the bytes come from, [`storage`] patient create-only writes.
//!
//! The one idea: every output is a pure function of one partition's log prefix. `docs/architecture.md` has the rest.

pub mod allocator;
pub mod archive;
pub mod checkpoint;
pub mod cli;
pub mod clock;
pub mod config;
pub mod contract;
pub mod dead_letters;
pub mod demo;
pub mod dlq;
pub mod hot_store;
pub mod ingest;
mod leb128;
pub mod memory;
pub mod ops;
pub mod partition;
pub mod registry;
pub mod run;
pub mod storage;
pub mod verify;
