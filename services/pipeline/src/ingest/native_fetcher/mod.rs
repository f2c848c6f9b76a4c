//! The native fetcher: record batches straight from the brokers' answers into the arenas of the partitions' workers.
//!
//! librdkafka stays the member of the group; its partitions stay paused. What it would spend on each message (an
//! operation allocated on one thread, a locked queue, freed on another) is what this saves. See
//! `docs/decisions/0009-native-fetcher.md` for what it gives up.
//!
//! | file | what |
//! |---|---|
//! | [`settings`] | librdkafka's properties that are followed here, and those that cannot be |
//! | [`leaders`] | the task that finds out who leads |
//! | [`board`] | which partition is fetched from where: what the threads share |
//! | [`broker_thread`] | the loop: ask, note, ask again, read |
//! | [`connection`] | bytes out and in, with time limits |
//! | [`protocol`] | requests and responses |
//! | [`record_batch`] | batches, records, transactions |
//! | [`decompress`] | the codecs |
//! | [`cursor`] | integers and sized fields, checked |
//!
//! # Positions
//! A partition's position moves when the *headers* of an answer's batches have been walked over, so that the next request
//! can be sent before their records are read. Control records and aborted transactions move it like any other; nothing
//! else does. A seek, and whatever else makes an answer worthless that is still to come, gives the partition a new
//! generation; answers to questions of an older one are dropped.
//!
//! # A log that was cut
//! After an unclean leader election the log may end before our position and grow again past it, with other records than
//! those that we have read. Each batch names the term (epoch) of the leader that wrote it. So before a batch of a newer
//! term is read, its leader is asked where the older one ended; before our position means that the log was cut, and the
//! partition stops ([`LogLost`](crate::partition::seams::LogLost)).

mod board;
mod broker_thread;
mod connection;
mod cursor;
mod decompress;
mod leaders;
mod protocol;
mod record_batch;
mod settings;
#[cfg(test)]
mod test_batches;

use std::sync::Arc;

pub(crate) use settings::unsupported_by_native_fetcher;

use super::shared::{Outlet, Shared, Slot};
use crate::config::KafkaConfig;
use board::Board;
use settings::FetchSettings;

/// A running native fetcher. Dropped, its threads end by themselves.
#[derive(Debug)]
pub(super) struct NativeFetcher {
    board: Arc<Board>,
    leaders: tokio::task::JoinHandle<()>,
}

impl NativeFetcher {
    /// Starts without partitions. Threads come with the brokers that lead them.
    pub(super) fn start(kafka: &KafkaConfig, shared: &Arc<Shared>) -> anyhow::Result<Self> {
        let settings = FetchSettings::new(kafka, &shared.limits, shared.budget.limit())?;
        let board = Arc::new(Board::new(Arc::clone(shared), settings));
        let leaders = shared.runtime.spawn(leaders::follow(Arc::clone(&board)));
        Ok(Self { board, leaders })
    }

    /// Fetches a partition from `offset` on.
    pub(super) fn seek(&self, outlet: Outlet, offset: i64) {
        self.board.seek(outlet, offset);
    }

    /// Fetches a partition no more.
    pub(super) fn forget(&self, slot: &Arc<Slot>) {
        self.board.forget(slot);
    }
}

impl Drop for NativeFetcher {
    fn drop(&mut self) {
        self.leaders.abort();
        self.board.wake();
    }
}
