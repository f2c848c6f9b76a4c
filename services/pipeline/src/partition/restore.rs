//! The way back in: from the group's committed offset to a state that goes on from there.

use std::sync::Arc;

use kappa_core::partition::PartitionState;
use kappa_core::snapshot::SnapshotError;
use object_store::path::Path;
use tracing::Instrument as _;

use super::context::PartitionContext;
use super::fail_point::{self, FailPoint};
use super::seams::{GroupOffsets as _, LogBounds, LogLost, NotTheOwner, PartitionLog};
use crate::archive::{FooterError, SegmentFooter, read_footer};
use crate::checkpoint::Snapshots;
use crate::storage::Backoff;

/// How often an object that makes no sense is read before that is believed: what is damaged on the wire is well the next time.
const READ_AT_MOST: u32 = 4;

/// Why a partition stopped and will not go on by itself: to go on would be to skip or to double something.
#[derive(Debug, thiserror::Error)]
pub enum StoppedLoudly {
    /// The state for the committed offset is gone.
    #[error(
        "the group has committed offset {offset}, but there is no snapshot {key}: was the state bucket emptied, or does \
         `state.url` point elsewhere? Put the snapshot back, or reset the group to an offset that has one ({available})"
    )]
    MissingSnapshot {
        /// The committed offset.
        offset: i64,
        /// Where the snapshot should be.
        key: Path,
        /// The offsets that do have one.
        available: String,
    },
    /// A snapshot that cannot be used.
    #[error("the snapshot {key} cannot be used: {error}")]
    BadSnapshot {
        /// Where it lies.
        key: Path,
        /// What is wrong with it.
        error: SnapshotError,
    },
    /// Records were deleted before they were read.
    #[error(
        "retention overran the pipeline: offset {position} is needed next, the log begins at {low_watermark}; \
         {missing} records are lost to it. To go on without them, start a new group with new state, archive and tables",
        missing = low_watermark - position
    )]
    RetentionOverran {
        /// The position needed.
        position: i64,
        /// Where the log begins.
        low_watermark: i64,
    },
    /// The topic is not the one that the state belongs to.
    #[error(
        "the topic was deleted and created again: {detail}. Its offsets mean other records now; start a new group with \
         new state, archive and tables"
    )]
    TopicRecreated {
        /// How it was noticed.
        detail: String,
    },
    /// The log lost something in mid-run.
    #[error(transparent)]
    LogLost(#[from] LogLost),
    /// The archive holds something that is no segment of ours.
    #[error("the archive object {key} is in the way: {error}")]
    ForeignObject {
        /// Where it lies.
        key: Path,
        /// What is wrong with it.
        error: String,
    },
    /// An adopted segment cannot be replayed to the same result.
    #[error("the segment {key} does not follow from the log any more: {detail}")]
    Contradiction {
        /// The segment.
        key: Path,
        /// What differs.
        detail: String,
    },
    /// A defect of the program.
    #[error("{0}")]
    Internal(String),
}

impl StoppedLoudly {
    pub(super) fn other_topic(then: &str, now: &str) -> Self {
        Self::TopicRecreated { detail: format!("its id was {then} and is {now}") }
    }
}

/// How a restore may end without a state.
#[derive(Debug)]
pub(super) enum NotRestored {
    /// Another member owns the partition now.
    NotTheOwner,
    /// Only a person can help.
    Stopped(StoppedLoudly),
}

impl From<StoppedLoudly> for NotRestored {
    fn from(error: StoppedLoudly) -> Self {
        Self::Stopped(error)
    }
}

impl From<NotTheOwner> for NotRestored {
    fn from(_: NotTheOwner) -> Self {
        Self::NotTheOwner
    }
}

/// The state at the committed offset, with the log positioned there.
pub(super) async fn restore<R, H, C, L: PartitionLog>(
    context: &PartitionContext<R, H, C>,
    log: &mut L,
) -> Result<PartitionState, NotRestored> {
    let bounds = log.bounds().await;
    let position = match log.group().committed().await {
        Some(committed) => committed,
        None => first_start(context, log, &bounds).await?,
    };
    let state = load(context, log, position, &bounds).instrument(tracing::info_span!("load_snapshot")).await?;
    tracing::Span::current().record("offset", state.position());
    check_bounds(state.position(), &log.bounds().await)?;
    log.seek(state.position()).await.map_err(StoppedLoudly::from)?;
    fail_point::pass(FailPoint::Restored);
    Ok(state)
}

/// A partition that the group has no offset for. Where it starts is settled once for all owners; then the empty snapshot
/// is stored and the offset committed before the first record is processed, so that a crash in the first segment finds
/// the same start again.
async fn first_start<R, H, C, L: PartitionLog>(
    context: &PartitionContext<R, H, C>,
    log: &L,
    bounds: &LogBounds,
) -> Result<i64, NotRestored> {
    let snapshots = snapshots_of(context);
    let start = if let Some(newest) = snapshots.positions(&context.observer).await.last() {
        // The group's offsets have expired, or the crash came between snapshot and commit. Whatever has a snapshot is
        // durable up to there.
        tracing::info!(
            topic = context.settings.topic,
            partition = context.partition,
            offset = newest,
            "no committed offset: going on from the newest snapshot"
        );
        *newest
    } else {
        // Of two owners at once, with `kafka.start = latest` say, each may come to an offset of its own.
        let start = snapshots.settle_start(log.resolve_start().await, &context.observer).await;
        let start = start
            .map_err(|error| StoppedLoudly::ForeignObject { key: snapshots.start_key(), error: error.to_string() })?;
        fail_point::pass(FailPoint::StartSettled);
        let settings = Arc::clone(&context.settings);
        let empty = PartitionState::empty(settings, context.partition, start, bounds.topic_id.clone());
        store(context, &empty).await?;
        fail_point::pass(FailPoint::FirstSnapshot);
        start
    };
    log.group().commit(start).await?;
    fail_point::pass(FailPoint::FirstCommit);
    Ok(start)
}

async fn store<R, H, C>(context: &PartitionContext<R, H, C>, state: &PartitionState) -> Result<(), StoppedLoudly> {
    let stored = snapshots_of(context).create(state.position(), &state.snapshot(), &context.observer).await;
    stored.map(|_| ()).map_err(|error| StoppedLoudly::Internal(format!("cannot compress a snapshot: {error}")))
}

async fn load<R, H, C, L: PartitionLog>(
    context: &PartitionContext<R, H, C>,
    log: &L,
    mut position: i64,
    bounds: &LogBounds,
) -> Result<PartitionState, StoppedLoudly> {
    let snapshots = snapshots_of(context);
    let (mut reads, mut backoff) = (0, Backoff::new(&position));
    loop {
        let key = snapshots.key(position);
        let found = snapshots.read(position, &context.observer).await;
        let opened = match found {
            Ok(Some(snapshot)) => open(context, &snapshot, key.clone(), position, bounds).map(Some),
            Ok(None) => Ok(None),
            Err(_) => Err(StoppedLoudly::BadSnapshot { key: key.clone(), error: SnapshotError::NotASnapshot }),
        };
        reads += 1;
        match opened {
            Ok(Some(state)) => return Ok(state),
            Ok(None) => {}
            Err(StoppedLoudly::BadSnapshot { error, .. }) if error.is_damage() && reads < READ_AT_MOST => {
                tracing::warn!(topic = context.settings.topic, partition = context.partition, %key, %error, "reading it again");
                backoff.pause().await;
                continue;
            }
            Err(stopped) => return Err(stopped),
        }
        // A missing snapshot may mean that we are the zombie and the chain has moved on.
        match log.group().committed().await {
            Some(newer) if newer != position => position = newer,
            _ => {
                let available = snapshots.positions(&context.observer).await;
                let available =
                    if available.is_empty() { "none has".to_owned() } else { format!("{available:?} have") };
                return Err(StoppedLoudly::MissingSnapshot { offset: position, key, available });
            }
        }
    }
}

fn open<R, H, C>(
    context: &PartitionContext<R, H, C>,
    snapshot: &[u8],
    key: Path,
    position: i64,
    bounds: &LogBounds,
) -> Result<PartitionState, StoppedLoudly> {
    let restored = PartitionState::restore(Arc::clone(&context.settings), snapshot);
    let (state, header) = restored.map_err(|error| StoppedLoudly::BadSnapshot { key: key.clone(), error })?;
    let expected = (context.settings.topic.as_str(), context.partition, position);
    let found = (header.topic.as_str(), header.partition, header.position);
    if expected != found {
        let error = format!("it is of topic, partition and offset {found:?}, not {expected:?}");
        return Err(StoppedLoudly::ForeignObject { key, error });
    }
    if let (Some(then), Some(now)) = (&header.topic_id, &bounds.topic_id)
        && then != now
    {
        return Err(StoppedLoudly::other_topic(then, now));
    }
    Ok(state)
}

fn check_bounds(position: i64, bounds: &LogBounds) -> Result<(), StoppedLoudly> {
    if position < bounds.low_watermark {
        return Err(StoppedLoudly::RetentionOverran { position, low_watermark: bounds.low_watermark });
    }
    if position > bounds.high_watermark {
        let detail = format!("offset {position} is committed, but the log ends at {}", bounds.high_watermark);
        return Err(StoppedLoudly::TopicRecreated { detail });
    }
    Ok(())
}

/// The snapshots of the context's partition.
pub(super) fn snapshots_of<R, H, C>(context: &PartitionContext<R, H, C>) -> Snapshots {
    Snapshots::new(context.stores.state.clone(), &context.settings.topic, context.partition)
}

/// The footer of the archive object at `key`, if there is one.
pub(super) async fn existing_segment<R, H, C>(
    context: &PartitionContext<R, H, C>,
    key: &Path,
) -> Result<Option<SegmentFooter>, StoppedLoudly> {
    let (mut reads, mut backoff) = (0, Backoff::new(key.as_ref()));
    loop {
        reads += 1;
        match read_footer(&context.stores.archive.store, key).await {
            Ok(footer) => return Ok(Some(footer)),
            Err(FooterError::Store(object_store::Error::NotFound { .. })) => return Ok(None),
            Err(FooterError::Store(error)) => crate::storage::StoreHealth::failing(&context.observer, key, &error),
            Err(FooterError::Parquet(error)) if reads < READ_AT_MOST => {
                tracing::warn!(topic = context.settings.topic, partition = context.partition, %key, %error, "reading it again");
            }
            Err(error) => {
                return Err(StoppedLoudly::ForeignObject { key: key.clone(), error: error.to_string() });
            }
        }
        backoff.pause().await;
    }
}
