//! See the crate's documentation.

use kappa_fuzz::allocations::Counting;
use kappa_fuzz::fuzzer::fuzz;
use kappa_fuzz::targets::{
    Configuration, ContractText, Footer, Payload, Records, RejectedInFooter, SchemaText, Snapshot,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn payloads_of_arbitrary_schemas() {
    fuzz(&Payload);
}

#[test]
fn schemas_of_writers_and_readers() {
    fuzz(&SchemaText::new());
}

#[test]
fn records_from_the_log_to_the_snapshot() {
    fuzz(&Records::new());
}

#[test]
fn snapshots() {
    fuzz(&Snapshot::new());
}

#[test]
fn footers() {
    fuzz(&Footer::new());
}

#[test]
fn rejects_in_footers() {
    fuzz(&RejectedInFooter);
}

#[test]
fn configurations() {
    fuzz(&Configuration);
}

#[test]
fn contracts() {
    fuzz(&ContractText::new());
}
