//! What is fuzzed, by who writes it.

mod footers;
mod schemas;
mod states;
mod texts;

pub use footers::{Footer, RejectedInFooter};
pub use schemas::{Payload, SchemaText};
pub use states::{Records, Snapshot};
pub use texts::{Configuration, ContractText};

const MIB: usize = 1 << 20;

/// A configuration with nothing in it that has a default.
const MINIMAL: &str = "[kafka]\nbrokers = [\"a:9092\"]\ntopic = \"readings\"\n[registry]\nurl = \"http://r:8081\"\n[archive]\nurl = \"s3://archive/a\"\n\
    [dead_letter]\nurl = \"s3://dead/a\"\n[state]\nurl = \"s3://state/a\"\n[hot_store]\nurl = \"http://c:8123\"\n";
