//! Opening a segment, and following one that another owner has sealed.

use std::sync::Arc;

use kappa_core::decode::ReaderSchema;
use kappa_core::partition::{Replay, SegmentCut};
use object_store::path::Path;

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
        self.read_by_schema_of(&footer, &key)?;
        self.state.begin_replay(Replay { end: footer.end, rejected: footer.rejected.clone() });
        self.adopting = Some(footer);
        fail_point::pass(FailPoint::Adopting);
        Ok(())
    }

    /// Its rows were made by the reader schema that its footer names, and so must be what is counted of them: after an
    /// upgrade of the reader these may differ, where a symbol has come that was the default before, say. So it is with the
    /// field that tells duplicates.
    fn read_by_schema_of(&mut self, footer: &SegmentFooter, key: &Path) -> Result<(), StoppedLoudly> {
        let own = &self.context.settings;
        if footer.reader_schema == own.reader.json() && footer.sequence.as_deref() == own.event.sequence_field() {
            return Ok(());
        }
        let reader = ReaderSchema::parse(&footer.reader_schema).map_err(|error| error.to_string());
        let settings = reader
            .and_then(|reader| own.read_by(reader, footer.sequence.as_deref()).map_err(|error| error.to_string()));
        let settings = settings.map_err(|problem| StoppedLoudly::Contradiction {
            key: key.clone(),
            detail: format!("its reader schema cannot be read by: {problem}"),
        })?;
        let (topic, partition, offset) = (own.topic.as_str(), self.context.partition, footer.start);
        tracing::info!(
            topic,
            partition,
            offset,
            "it was written by another version of the reader schema, or of event.sequence, which is used for it"
        );
        self.state.switch_settings(Arc::new(settings));
        Ok(())
    }

    /// The adopted segment is through.
    pub(super) fn read_by_own_schema(&mut self) {
        if !Arc::ptr_eq(self.state.settings(), &self.context.settings) {
            self.state.switch_settings(Arc::clone(&self.context.settings));
        }
    }

    /// Whether replaying the segment led to what its footer says.
    pub(super) fn check_adopted(&self, footer: &SegmentFooter, cut: &SegmentCut) -> Result<(), StoppedLoudly> {
        let replayed = footer_of(self.context, cut);
        let has_same_marks = footer.duplicates.is_none_or(|duplicates| duplicates == cut.duplicates);
        if replayed.is_same_segment(footer) && replayed.rows == footer.rows && has_same_marks {
            return Ok(());
        }
        let brief = |footer: &SegmentFooter| {
            let rejects = footer.rejected.count();
            let SegmentFooter { end, rows, digest, .. } = footer;
            let duplicates = footer.duplicates.unwrap_or_default();
            format!("end {end}, {rows} rows, {duplicates} duplicates, {rejects} rejects, digest {digest}")
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
