//! The queue of cut segments: sealed one after the other in a task of their own, while the worker goes on.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::context::PartitionContext;
use super::super::seal::{SealReport, Sealer, SegmentToSeal};
use super::super::seams::{GroupOffsets, HotStore, WallClock};

/// Cut segments on their way. Dropped with the worker, and their sealing with it.
#[derive(Debug)]
pub(super) struct SealQueue {
    segments: mpsc::UnboundedSender<SegmentToSeal>,
    reports: mpsc::UnboundedReceiver<SealReport>,
    /// Segments that were pushed and not yet reported as committed.
    under_way: usize,
    _task: JoinSet<()>,
}

impl SealQueue {
    pub(super) fn start<R: 'static, H: HotStore + 'static, C: WallClock + 'static>(
        context: &Arc<PartitionContext<R, H, C>>,
        group: impl GroupOffsets + 'static,
        position: i64,
    ) -> Self {
        let (segments, mut queue) = mpsc::unbounded_channel::<SegmentToSeal>();
        let (report, reports) = mpsc::unbounded_channel();
        let mut sealer = Sealer { context: Arc::clone(context), group, snapshots: vec![position] };
        let mut task = JoinSet::new();
        task.spawn_local(async move {
            sealer.find_snapshots().await;
            while let Some(segment) = queue.recv().await {
                let durable = |end| _ = report.send(SealReport::Durable { end });
                let result = sealer.seal(segment, durable).await;
                let is_last = !matches!(result, SealReport::Committed);
                // The worker may be gone.
                if report.send(result).is_err() || is_last {
                    return;
                }
            }
        });
        Self { segments, reports, under_way: 0, _task: task }
    }

    pub(super) fn push(&mut self, segment: SegmentToSeal) {
        // After a report that was not "committed" the task takes no more; the worker sees that report next.
        if self.segments.send(segment).is_ok() {
            self.under_way += 1;
        }
    }

    /// Whether a segment is not yet committed.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way > 0
    }

    /// What happened last; waits while nothing does.
    pub(super) async fn next_report(&mut self) -> SealReport {
        let Some(report) = self.reports.recv().await else { return std::future::pending().await };
        if !matches!(report, SealReport::Durable { .. }) {
            self.under_way = self.under_way.saturating_sub(1);
        }
        report
    }
}
