//! Rows on their way to the hot store, at most one batch at a time.

use std::sync::Arc;

use kappa_core::rows::{AnomalyRow, SensorRow, WindowRow};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::context::PartitionContext;
use super::super::seal::Acknowledgements;
use super::super::seams::{HotRows, HotStore, WallClock};
use crate::ops::metrics::FRESHNESS;

/// Counts what was sent, and what was acknowledged.
#[derive(Debug)]
pub(super) struct Emission {
    sent: u64,
    acknowledged: watch::Sender<u64>,
    /// The write under way; dropped with the worker.
    writes: JoinSet<()>,
}

impl Emission {
    pub(super) fn new() -> Self {
        Self { sent: 0, acknowledged: watch::Sender::new(0), writes: JoinSet::new() }
    }

    pub(super) fn is_under_way(&self) -> bool {
        *self.acknowledged.borrow() < self.sent
    }

    pub(super) fn so_far(&self) -> Acknowledgements {
        Acknowledgements { sent: self.sent, acknowledged: self.acknowledged.subscribe() }
    }

    pub(super) fn send<R: 'static, H: HotStore + 'static, C: WallClock + 'static>(
        &mut self,
        context: &Arc<PartitionContext<R, H, C>>,
        rows: HotRows,
        newest_timestamp_ms: Option<i64>,
    ) {
        while self.writes.try_join_next().is_some() {}
        if rows.is_empty() {
            return;
        }
        self.sent += 1;
        let bytes = rows.windows.len() * size_of::<WindowRow>()
            + rows.anomalies.len() * size_of::<AnomalyRow>()
            + rows.sensors.len() * size_of::<SensorRow>();
        let reservation = context.budget.reserve(bytes);
        let (context, acknowledged, number) = (Arc::clone(context), self.acknowledged.clone(), self.sent);
        self.writes.spawn_local(async move {
            context.hot_store.write(Arc::new(rows)).await;
            drop(reservation);
            if let Some(newest) = newest_timestamp_ms {
                let age_ms = (context.clock.now_ms() - newest).max(0);
                metrics::histogram!(FRESHNESS).record(age_ms as f64 / 1e3);
            }
            acknowledged.send_replace(number);
        });
    }
}
