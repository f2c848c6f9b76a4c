//! Opening a segment, and following one that another owner has sealed.

use kappa_core::partition::{Replay, SegmentCut};

use super::super::fail_point::{self, FailPoint};
use super::super::restore::{StoppedLoudly, existing_segment};
use super::super::seal::{archive_key, footer_of};
use super::super::seams::{Delivery, PartitionLog, WallClock};
use super::Worker;
use crate::archive::SegmentFooter;
use crate::ops::status::PartitionState as Phase;

impl<R, H, C: WallClock, L: PartitionLog> Worker<'_, R, H, C, L> {
    /// The record at `index`, or the first behind it that is not yet processed, opens a segment. After a restore that
    /// segment may have been sealed by a former owner: then its footer decides.
    pub(super) async fn open_segment(&mut self, delivery: &Delivery, index: usize) -> Result<(), StoppedLoudly> {
        let index = index.max(delivery.batch.position_of(self.state.position()));
        // The first record may have been here before, waiting for its schema.
        if index >= delivery.batch.len() || self.adopting.is_some() {
            return Ok(());
        }
        self.sighting.segment_opened_at_ms = Some(self.context.clock.now_ms());
        if !self.next_may_exist {
            return Ok(());
        }
        let start = self.state.segment().start;
        let key = archive_key(self.context, start, delivery.batch.get(index).timestamp_ms);
        let Some(footer) = existing_segment(self.context, &key).await? else {
            self.next_may_exist = false;
            self.context.observer.phase(Phase::Running);
            return Ok(());
        };
        self.context.observer.phase(Phase::Adopting);
        self.context.observer.adopted();
        tracing::info!(
            topic = self.context.settings.topic,
            partition = self.context.partition,
            offset = start,
            end = footer.end,
            "replaying a segment that is sealed"
        );
        self.state.begin_replay(Replay { end: footer.end, rejected: footer.rejected.clone() });
        self.adopting = Some(footer);
        fail_point::pass(FailPoint::Adopting);
        Ok(())
    }

    /// Whether replaying the segment led to what its footer says.
    pub(super) fn check_adopted(&self, footer: &SegmentFooter, cut: &SegmentCut) -> Result<(), StoppedLoudly> {
        let replayed = footer_of(self.context, cut);
        if replayed.is_same_segment(footer) && replayed.rows == footer.rows {
            return Ok(());
        }
        let brief = |footer: &SegmentFooter| {
            let rejects = footer.rejected.count();
            format!("end {}, {} rows, {rejects} rejects, digest {}", footer.end, footer.rows, footer.digest)
        };
        let detail = format!("its footer says {}; the log says {}", brief(footer), brief(&replayed));
        let key = archive_key(self.context, cut.start, cut.first_timestamp_ms);
        Err(StoppedLoudly::Contradiction { key, detail })
    }

    /// A record of an adopted segment does not follow its footer.
    pub(super) fn contradiction(&self, detail: String) -> StoppedLoudly {
        let first_timestamp_ms = self.state.segment_first_timestamp_ms().unwrap_or_default();
        let key = archive_key(self.context, self.state.segment().start, first_timestamp_ms);
        StoppedLoudly::Contradiction { key, detail }
    }
}
