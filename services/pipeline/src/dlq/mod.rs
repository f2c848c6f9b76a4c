//! `kappa dlq`: what becomes of refused records. They are found and counted, looked at, explained, sent again once their
//! cause is mended, and purged when nobody needs them any more.
//!
//! | module | what it does |
//! |---|---|
//! | [`selection`] | which dead letters are meant |
//! | [`bucket`] | goes through them, some objects at a time |
//! | [`summary`] | counts them by what they have in common |
//! | [`judge`] | what the pipeline would say of a record now |
//! | [`exhibit`] | shows one: decoded as far as it goes, and the byte at which it ends |
//! | [`explanation`] | why, and what to do |
//! | [`fix`], [`expression`] | changes a record before it is sent again |
//! | [`redrive`] | sends records again, none of them twice |
//! | [`ledger`] | what was sent, in create-only objects beside the dead letters |
//! | [`producer`] | a transaction of Kafka's for each batch, which says by itself whether it counts |
//! | [`purge`], [`purges`] | deletes old ones, and remembers that it did |
//!
//! **Never twice.** A batch has a number. First an *intent* is created in the ledger, with that number and the records;
//! then one transaction carries the records and, as the offset of a group of its own, the number; then the ledger gets
//! the *outcome*. Whoever comes after a crash first takes the transactional id, which ends the transaction of whoever
//! had it, and then reads the number: it says of each intent without outcome whether its transaction counted. So a
//! process may be killed, or stopped and woken up again, between any two steps.

mod bucket;
mod exhibit;
mod explanation;
mod export;
mod expression;
mod fix;
mod judge;
pub mod ledger;
mod producer;
mod purge;
pub mod purges;
mod redrive;
mod selection;
mod summary;

use object_store::path::Path;

pub use bucket::Bucket;
pub use exhibit::Exhibit;
pub use explanation::{Explanation, explain_reason};
pub use expression::Expression;
pub use fix::Fix;
pub use judge::{Judge, Verdict};
pub use purge::{Purge, PurgePlan};
pub use redrive::{RedriveOptions, RedriveReport, redrive};
pub use selection::{Address, HeaderFilter, Selection};
pub use summary::{Dimension, Summary, summarize};

/// Whether a key below the dead letters of a topic is one of the ledger or of the purges.
pub fn is_beside_dead_letters(prefix: &Path, topic: &str, key: &Path) -> bool {
    ledger::parse_key(prefix, topic, key).is_some() || purges::parse_key(prefix, topic, key).is_some()
}
