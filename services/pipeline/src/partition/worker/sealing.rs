//! The queue of cut segments: sealed in order, in two tasks, while the worker goes on. The second commits what the first
//! has archived; with the hot store away the archive runs ahead of it, within the memory budget.

use std::collections::VecDeque;
use std::sync::Arc;

use kappa_core::partition::PartitionState;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::context::PartitionContext;
use super::super::seal::{ArchivedSegment, Archiver, Committer, SealReport, SegmentToSeal};
use super::super::seams::{GroupOffsets, HotStore, WallClock};

/// Cut segments on their way. Dropped with the worker, and their sealing with it.
#[derive(Debug)]
pub(super) struct SealQueue {
    segments: mpsc::UnboundedSender<SegmentToSeal>,
    reports: mpsc::UnboundedReceiver<SealReport>,
    /// When each segment was pushed that is not yet reported as committed, oldest first.
    under_way: VecDeque<i64>,
    /// How many of them are not in the archive yet.
    to_archive: usize,
    _tasks: JoinSet<()>,
}

impl SealQueue {
    pub(super) fn start<R: 'static, H: HotStore + 'static, C: WallClock + 'static>(
        context: &Arc<PartitionContext<R, H, C>>,
        group: impl GroupOffsets + Clone + 'static,
        state: &PartitionState,
    ) -> Self {
        let (segments, mut queue) = mpsc::unbounded_channel::<SegmentToSeal>();
        let (report, reports) = mpsc::unbounded_channel();
        let (archived, mut to_commit) = mpsc::unbounded_channel::<ArchivedSegment>();
        let mut tasks = JoinSet::new();
        let topic_id = state.topic_id().map(str::to_owned);
        let archiver = Archiver { context: Arc::clone(context), group: group.clone(), topic_id };
        let archiver_report = report.clone();
        tasks.spawn_local(async move {
            while let Some(segment) = queue.recv().await {
                match archiver.archive(segment).await {
                    Ok(segment) => {
                        // The worker may be gone.
                        _ = archiver_report.send(SealReport::Durable { end: segment.end() });
                        _ = archived.send(segment);
                    }
                    Err(last) => {
                        _ = archiver_report.send(last);
                        return;
                    }
                }
            }
        });
        let mut committer = Committer { context: Arc::clone(context), group, snapshots: vec![state.position()] };
        tasks.spawn_local(async move {
            committer.find_snapshots().await;
            while let Some(segment) = to_commit.recv().await {
                let result = committer.commit(segment).await;
                let is_last = !matches!(result, SealReport::Committed);
                if report.send(result).is_err() || is_last {
                    return;
                }
            }
        });
        Self { segments, reports, under_way: VecDeque::new(), to_archive: 0, _tasks: tasks }
    }

    pub(super) fn push(&mut self, segment: SegmentToSeal, now_ms: i64) {
        // After a report that was not "committed" the task takes no more; the worker sees that report next.
        if self.segments.send(segment).is_ok() {
            self.under_way.push_back(now_ms);
            self.to_archive += 1;
        }
    }

    /// Whether a segment is not yet committed.
    pub(super) fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Whether everything that was cut is in the archive.
    pub(super) fn is_archive_idle(&self) -> bool {
        self.to_archive == 0
    }

    /// How many segments are not yet committed, and since when the oldest of them waits.
    pub(super) fn under_way(&self) -> (usize, Option<i64>) {
        (self.under_way.len(), self.under_way.front().copied())
    }

    /// What happened last; waits while nothing does.
    pub(super) async fn next_report(&mut self) -> SealReport {
        let Some(report) = self.reports.recv().await else { return std::future::pending().await };
        if matches!(report, SealReport::Durable { .. }) {
            self.to_archive -= 1;
        } else {
            self.under_way.pop_front();
        }
        report
    }
}
