//! Sealing a cut segment: five steps, in this order. Each is idempotent, so a crash between any two is harmless.

use std::sync::Arc;

use kappa_core::partition::SegmentCut;
use object_store::path::Path;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{Instrument as _, Span, info_span};

use super::context::PartitionContext;
use super::fail_point::{self, FailPoint};
use super::restore::{StoppedLoudly, existing_segment, snapshots_of};
use super::seams::{GroupOffsets, HotRows, HotStore, SegmentQuality, WallClock};
use crate::archive::{SegmentEncoder, SegmentFooter, segment_key};
use crate::dead_letters::{self, DeadLetterEncoder};
use crate::memory::Reservation;
use crate::ops::metrics::SEAL_DURATION;
use crate::storage::{self, Created};

/// A cut segment on its way to being durable.
#[derive(Debug)]
pub(super) struct SegmentToSeal {
    pub(super) cut: SegmentCut,
    /// The rows on their way to a file; `None` for an adopted segment, whose file exists.
    pub(super) encoder: Option<SegmentEncoder>,
    /// The rejected records on their way to a file; `None` where nothing was rejected.
    pub(super) dead_letters: Option<DeadLetterEncoder>,
    /// Rows that were written provisionally before the cut: all of them must be acknowledged too.
    pub(super) emitted_before: Acknowledgements,
    /// The memory that the cut holds.
    pub(super) reservation: Reservation,
    /// Ends when the last that seals it lets go of it.
    pub(super) span: Span,
}

/// A segment whose cut stands, with its dead letters written.
#[derive(Debug)]
pub(super) struct ArchivedSegment {
    cut: SegmentCut,
    emitted_before: Acknowledgements,
    reservation: Reservation,
    span: Span,
}

impl ArchivedSegment {
    pub(super) fn end(&self) -> i64 {
        self.cut.end
    }
}

/// Waits for provisional writes: the number of the last that was sent, and of the last that was acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Acknowledgements {
    pub(super) sent: u64,
    pub(super) acknowledged: watch::Receiver<u64>,
}

/// How sealing a segment goes.
#[derive(Debug)]
pub(super) enum SealReport {
    /// Step 1 is done: the cut stands for ever.
    Durable { end: i64 },
    /// All five steps are done.
    Committed,
    /// Another owner's cut stands. This worker's state is of no use any more.
    LostTheRace,
    /// Another member owns the partition.
    NotTheOwner,
    /// Only a person can help.
    Stopped(StoppedLoudly),
}

/// Goes through steps 1 and 2.
#[derive(Debug)]
pub(super) struct Archiver<R, H, C, G> {
    pub(super) context: Arc<PartitionContext<R, H, C>>,
    pub(super) group: G,
    /// The topic that the state belongs to, where the brokers said it.
    pub(super) topic_id: Option<String>,
}

impl<R, H, C, G: GroupOffsets> Archiver<R, H, C, G> {
    /// Steps 1 and 2. They run ahead of the others: a hot store that is away must not stop the archive.
    pub(super) async fn archive(&self, segment: SegmentToSeal) -> Result<ArchivedSegment, SealReport> {
        let SegmentToSeal { cut, encoder, dead_letters, emitted_before, reservation, span } = segment;
        fail_point::pass(FailPoint::Cut);
        let started = Instant::now();
        if let Some(encoder) = encoder {
            let created = self.create_archive_object(&cut, encoder).instrument(info_span!(parent: &span, "archive"));
            if !created.await.map_err(SealReport::Stopped)? {
                return Err(SealReport::LostTheRace);
            }
        }
        fail_point::pass(FailPoint::Archived);
        let started = took("archive", started);
        if let Some(encoder) = dead_letters {
            let created = self.create_dead_letters(&cut, encoder).instrument(info_span!(parent: &span, "dead_letters"));
            created.await.map_err(SealReport::Stopped)?;
        }
        fail_point::pass(FailPoint::DeadLettersWritten);
        took("dead_letters", started);
        Ok(ArchivedSegment { cut, emitted_before, reservation, span })
    }

    /// Step 1. Returns whether the cut stands.
    async fn create_archive_object(&self, cut: &SegmentCut, encoder: SegmentEncoder) -> Result<bool, StoppedLoudly> {
        let context = &self.context;
        let footer = footer_of(context, cut);
        let (finished, is_same_topic) = tokio::join!(encoder.finish(footer.key_values()), self.check_topic());
        is_same_topic?;
        let (file, _reservation) = finished.map_err(|error| StoppedLoudly::Internal(error.to_string()))?;
        let archive = &context.stores.archive;
        let key = archive_key(context, cut.start, cut.first_timestamp_ms);
        loop {
            match storage::create(archive, &key, file.clone(), &context.observer).await {
                Created::ByUs => {
                    context.observer.archived(file.len());
                    return Ok(true);
                }
                Created::Already => {}
            }
            // Perhaps our own earlier try, whose answer was lost; perhaps another owner's cut.
            if let Some(existing) = existing_segment(context, &key).await? {
                return Ok(existing.is_same_segment(&footer));
            }
        }
    }

    /// Refuses to seal what may be of another topic. One that was deleted and created again has the same name, and its
    /// records come as if nothing had happened. All records of the segment were taken in before this question, so if
    /// the topic is still the one of the state, they are too.
    async fn check_topic(&self) -> Result<(), StoppedLoudly> {
        let Some(then) = &self.topic_id else { return Ok(()) };
        match self.group.topic_id().await {
            Some(now) if now != *then => Err(StoppedLoudly::other_topic(then, &now)),
            _ => Ok(()),
        }
    }

    /// Step 2. The object follows from the footer and the log, so whoever was first wrote the same records.
    async fn create_dead_letters(&self, cut: &SegmentCut, encoder: DeadLetterEncoder) -> Result<(), StoppedLoudly> {
        let context = &self.context;
        let topic = &context.settings.topic;
        let finished = encoder.finish(dead_letters::key_values(topic, context.partition, cut.start..cut.end)).await;
        let (file, _reservation) = finished.map_err(|error| StoppedLoudly::Internal(error.to_string()))?;
        let root = &context.stores.dead_letters;
        let key = segment_key(&root.prefix, topic, context.partition, cut.start, cut.first_timestamp_ms);
        storage::create(root, &key, file, &context.observer).await;
        Ok(())
    }
}

/// Goes through steps 3 to 5.
#[derive(Debug)]
pub(super) struct Committer<R, H, C, G> {
    pub(super) context: Arc<PartitionContext<R, H, C>>,
    pub(super) group: G,
    /// Positions of the snapshots that still exist, oldest first.
    pub(super) snapshots: Vec<i64>,
}

impl<R, H: HotStore, C: WallClock, G: GroupOffsets> Committer<R, H, C, G> {
    /// Finds the snapshots that earlier owners left, so that they are deleted when their time comes.
    pub(super) async fn find_snapshots(&mut self) {
        let Some(current) = self.snapshots.last().copied() else { return };
        let mut found = snapshots_of(&self.context).positions(&self.context.observer).await;
        found.retain(|position| *position < current);
        found.push(current);
        self.snapshots = found;
    }

    /// Steps 3 to 5, for one segment after the other.
    pub(super) async fn commit(&mut self, segment: ArchivedSegment) -> SealReport {
        let ArchivedSegment { cut, emitted_before, reservation, span } = segment;
        let (end, snapshot) = (cut.end, cut.snapshot);
        let rows = HotRows {
            windows: cut.window_rows,
            anomalies: cut.anomalies,
            sensors: cut.sensors,
            quality: cut
                .quality
                .into_iter()
                .map(|row| SegmentQuality { segment: cut.start, version: end, row })
                .collect(),
        };
        let started = Instant::now();
        self.write_hot_rows(rows, emitted_before).instrument(info_span!(parent: &span, "hot_store")).await;
        fail_point::pass(FailPoint::RowsWritten);
        let started = took("hot_store", started);
        let created = self.create_snapshot(end, &snapshot).instrument(info_span!(parent: &span, "snapshot"));
        if let Err(stopped) = created.await {
            return SealReport::Stopped(stopped);
        }
        fail_point::pass(FailPoint::SnapshotWritten);
        let started = took("snapshot", started);
        if self.group.commit(end).instrument(info_span!(parent: &span, "commit")).await.is_err() {
            return SealReport::NotTheOwner;
        }
        fail_point::pass(FailPoint::Committed);
        took("commit", started);
        let PartitionContext { settings, partition, observer, clock, .. } = &*self.context;
        observer.committed(end, clock.now_ms());
        tracing::debug!(topic = settings.topic, partition, offset = end, "segment committed");
        drop((reservation, span));
        self.prune_snapshots(end).await;
        fail_point::pass(FailPoint::Pruned);
        SealReport::Committed
    }

    /// Step 3. Everything that is true up to the end of the segment, and everything that was sent before.
    async fn write_hot_rows(&self, rows: HotRows, mut emitted_before: Acknowledgements) {
        if !rows.is_empty() {
            self.context.hot_store.write(Arc::new(rows)).await;
        }
        let sent = emitted_before.sent;
        if emitted_before.acknowledged.wait_for(|acknowledged| *acknowledged >= sent).await.is_err() {
            // The worker is gone, and this task with it: silence is no acknowledgement.
            std::future::pending::<()>().await;
        }
    }

    /// Step 4.
    async fn create_snapshot(&self, end: i64, snapshot: &[u8]) -> Result<(), StoppedLoudly> {
        let created = snapshots_of(&self.context).create(end, snapshot, &self.context.observer).await;
        created.map(|_| ()).map_err(|error| StoppedLoudly::Internal(format!("cannot compress a snapshot: {error}")))
    }

    /// Keeps the last two: the committed one, and the one before it for an owner that is just starting from it.
    async fn prune_snapshots(&mut self, end: i64) {
        self.snapshots.retain(|position| *position < end);
        self.snapshots.push(end);
        while self.snapshots.len() > 2 && snapshots_of(&self.context).delete(self.snapshots[0]).await {
            // What could not be deleted is tried again after the next commit.
            self.snapshots.remove(0);
        }
    }
}

/// Records how long a step took, and starts the clock of the next.
fn took(step: &'static str, started: Instant) -> Instant {
    metrics::histogram!(SEAL_DURATION, "step" => step).record(started.elapsed());
    Instant::now()
}

/// The footer of a cut segment.
pub(super) fn footer_of<R, H, C>(context: &PartitionContext<R, H, C>, cut: &SegmentCut) -> SegmentFooter {
    SegmentFooter {
        topic: context.settings.topic.clone(),
        partition: context.partition,
        start: cut.start,
        end: cut.end,
        rows: cut.rows,
        sequence: context.settings.event.sequence_field().map(str::to_owned),
        duplicates: Some(cut.duplicates),
        rejected: cut.rejected_offsets.clone(),
        digest: cut.digest.clone(),
        reader_schema: context.settings.reader.json().to_owned(),
        contract: context.settings.contract.label().map(str::to_owned),
    }
}

/// Where the segment that starts at `start` lies.
pub(super) fn archive_key<R, H, C>(context: &PartitionContext<R, H, C>, start: i64, first_timestamp_ms: i64) -> Path {
    let prefix = &context.stores.archive.prefix;
    segment_key(prefix, &context.settings.topic, context.partition, start, first_timestamp_ms)
}
