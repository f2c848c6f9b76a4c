//! The worker of one partition: takes records in, emits provisional rows, decides when to cut.

mod adoption;
mod emission;
mod schemas;
mod sealing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kappa_core::partition::{PartitionState, Progress, RejectedRecords, Stage};
use tokio::sync::watch;
use tracing::Instrument as _;

use self::emission::Emission;
use self::schemas::SchemaLookup;
use self::sealing::SealQueue;
use super::context::PartitionContext;
use super::observer::{Sighting, log_cut, seal_span};
use super::restore::{NotRestored, StoppedLoudly, restore};
use super::seal::{SealReport, SegmentToSeal};
use super::seams::{Delivery, HotRows, HotStore, PartitionLog, SchemaSource, WallClock};
use crate::archive::{SegmentEncoder, SegmentFile, SegmentFooter};
use crate::dead_letters::{DeadLetterEncoder, DeadLetterFile};
use crate::memory::Reservation;
use crate::ops::metrics::RESTORE_DURATION;
use crate::ops::status::PartitionState as Phase;

/// How a partition ended, apart from being dropped by a revoke.
#[derive(Debug)]
pub enum PartitionEnd {
    /// Asked to stop: everything taken in is sealed and committed.
    Sealed,
    /// Another member owns it.
    NotTheOwner,
    /// It cannot go on without a person.
    Stopped(StoppedLoudly),
}

/// Why a worker ends or starts over.
enum Interrupt {
    /// Another owner's cut stands: back to the last commit.
    StartOver,
    End(PartitionEnd),
}

impl From<StoppedLoudly> for Interrupt {
    fn from(stopped: StoppedLoudly) -> Self {
        Self::End(PartitionEnd::Stopped(stopped))
    }
}

/// Runs a partition until it is asked to stop, loses its owner, or must stop loudly. Drop the future to revoke it.
///
/// Must run inside a [`tokio::task::LocalSet`]: sealing and emission go on in tasks of their own.
pub async fn run_partition<R, H, C, L>(
    context: Arc<PartitionContext<R, H, C>>,
    mut log: L,
    mut stop: watch::Receiver<bool>,
) -> PartitionEnd
where
    R: SchemaSource + 'static,
    H: HotStore + 'static,
    C: WallClock + 'static,
    L: PartitionLog,
{
    let end = loop {
        context.observer.phase(Phase::Restoring);
        let started = tokio::time::Instant::now();
        let state = tokio::select! {
            biased;
            // Nothing was taken in yet, so there is nothing to seal.
            _ = stop.wait_for(|stop| *stop) => break PartitionEnd::Sealed,
            restored = restore(&context, &mut log).instrument(restore_span(&context)) => match restored {
                Ok(state) => state,
                Err(NotRestored::NotTheOwner) => break PartitionEnd::NotTheOwner,
                Err(NotRestored::Stopped(stopped)) => break PartitionEnd::Stopped(stopped),
            },
        };
        context.observer.committed(state.position(), context.clock.now_ms());
        metrics::histogram!(RESTORE_DURATION).record(started.elapsed());
        context.observer.phase(Phase::Running);
        if let Interrupt::End(end) = Worker::new(&context, &mut log, state).run(&mut stop).await {
            break end;
        }
    };
    if let PartitionEnd::Stopped(stopped) = &end {
        context.observer.stopped(stopped);
    }
    end
}

/// A trace of its own. `offset` follows when it is known.
fn restore_span<R, H, C>(context: &PartitionContext<R, H, C>) -> tracing::Span {
    let PartitionContext { settings, partition, .. } = context;
    tracing::info_span!(parent: None, "restore", topic = settings.topic, partition, offset = tracing::field::Empty)
}

struct Worker<'a, R, H, C, L: PartitionLog> {
    context: &'a Arc<PartitionContext<R, H, C>>,
    log: &'a mut L,
    state: PartitionState,
    /// Where decoded rows go; `None` until the segment has rows, and while an adopted segment is replayed.
    encoder: Option<SegmentEncoder>,
    /// Where rejected records go; `None` until the segment has some.
    dead_letters: Option<DeadLetterEncoder>,
    /// Whether the next segment may exist already: after a restore, until one is found that does not.
    next_may_exist: bool,
    /// The footer of the segment that is being replayed.
    adopting: Option<SegmentFooter>,
    sealing: SealQueue,
    emission: Emission,
    /// Records taken from the log and not yet processed from the index on: the schema of that record is awaited.
    in_hand: Option<(Delivery, usize)>,
    /// Wall-clock time of the next tick. A fixed time: one that passes while records are processed is late, not lost.
    next_tick_ms: i64,
    lookup: SchemaLookup,
    /// Rows may not leave before the segment with this end is durable.
    hold_rows_until: Option<i64>,
    sighting: Sighting,
    late_reported: u64,
    reservation: Reservation,
}

impl<'a, R, H, C, L> Worker<'a, R, H, C, L>
where
    R: SchemaSource + 'static,
    H: HotStore + 'static,
    C: WallClock + 'static,
    L: PartitionLog,
{
    fn new(context: &'a Arc<PartitionContext<R, H, C>>, log: &'a mut L, state: PartitionState) -> Self {
        Self {
            sealing: SealQueue::start(context, log.group(), &state),
            emission: Emission::new(),
            encoder: None,
            dead_letters: None,
            next_may_exist: true,
            adopting: None,
            in_hand: None,
            next_tick_ms: tick_after(context),
            lookup: SchemaLookup::default(),
            hold_rows_until: None,
            sighting: Sighting::default(),
            late_reported: 0,
            reservation: context.budget.reserve(0),
            context,
            log,
            state,
        }
    }

    async fn run(mut self, stop: &mut watch::Receiver<bool>) -> Interrupt {
        let ended = loop {
            if let Err(interrupt) = self.step(stop).await {
                break interrupt;
            }
        };
        self.context.sizes.forget(self.context.partition);
        ended
    }

    /// Waits for the next thing to happen, and deals with it.
    async fn step(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), Interrupt> {
        let next_tick = self.until_next_tick();
        tokio::select! {
            biased;
            report = self.sealing.next_report() => self.on_report(report),
            _ = stop.wait_for(|stop| *stop) => Err(self.finish().await),
            () = tokio::time::sleep(next_tick) => self.on_tick().await,
            (reference, verdict) = self.lookup.answer() => {
                schemas::teach(&mut self.state, reference, verdict);
                self.context.observer.phase(Phase::Running);
                self.process_in_hand().await
            }
            delivery = self.log.next(), if self.in_hand.is_none() => {
                let delivery = delivery.map_err(StoppedLoudly::from)?;
                self.sighting.see(&delivery);
                self.context.observer.fetched(delivery.batch.byte_len());
                self.in_hand = Some((delivery, 0));
                self.process_in_hand().await
            }
        }
    }

    fn until_next_tick(&self) -> Duration {
        let wait_ms = self.next_tick_ms - self.context.clock.now_ms();
        // A clock that was set back must not silence the ticks until it has caught up.
        Duration::from_millis(wait_ms.max(0) as u64).min(self.context.pacing.emit_interval)
    }

    async fn process_in_hand(&mut self) -> Result<(), Interrupt> {
        let Some((delivery, mut index)) = self.in_hand.take() else { return Ok(()) };
        loop {
            if self.state.segment_first_timestamp_ms().is_none() {
                self.open_segment(&delivery, index).await?;
            }
            match self.process(&delivery, index) {
                Progress::Consumed => break,
                Progress::RowsWait { index: next } => {
                    self.encode_rows().await?;
                    let rejects = self.state.take_rejects();
                    self.encode_rejects(rejects).await?;
                    self.cut_if_due().await?;
                    index = next;
                }
                Progress::SegmentEnds { index: next } => {
                    self.cut("the next record belongs to another").await?;
                    index = next;
                }
                Progress::NeedsSchema { index, reference } => {
                    self.lookup.ask(self.context, reference);
                    self.context.observer.phase(Phase::WaitingForSchema);
                    self.in_hand = Some((delivery, index));
                    break;
                }
                Progress::Contradiction { offset, reject } => {
                    return Err(self
                        .contradiction(format!("offset {offset} counts as accepted, but is {reject}"))
                        .into());
                }
            }
        }
        self.after_records().await
    }

    fn process(&mut self, delivery: &Delivery, index: usize) -> Progress {
        let (rows, duplicates) = (self.state.segment_rows(), self.state.segment_duplicates());
        let rejects = self.state.waiting_rejects().len();
        let (mut decoding, mut counting) = (Duration::ZERO, Duration::ZERO);
        let mut last = Instant::now();
        let progress = self.state.process_watched(&delivery.batch, index, |stage| {
            let now = Instant::now();
            *match stage {
                Stage::Decode => &mut decoding,
                Stage::Windows => &mut counting,
            } += now - last;
            last = now;
        });
        self.context.observer.processed(decoding, counting);
        let (rows, duplicates) = (self.state.segment_rows() - rows, self.state.segment_duplicates() - duplicates);
        self.context.observer.taken_in(rows, duplicates, self.state.position());
        self.context.observer.rejected(self.state.waiting_rejects(), rejects);
        self.context.observer.warned(self.state.take_warnings());
        progress
    }

    async fn after_records(&mut self) -> Result<(), Interrupt> {
        if self.adopting.as_ref().is_some_and(|footer| self.state.position() >= footer.end) {
            self.cut("the adopted segment is through").await?;
        }
        self.note_memory();
        self.cut_if_due().await
    }

    async fn on_tick(&mut self) -> Result<(), Interrupt> {
        self.next_tick_ms = tick_after(self.context);
        self.sighting.now_ms = self.context.clock.now_ms();
        // A clock that was set back must not keep the segment open until it has caught up.
        let opened_at_ms = self.sighting.segment_opened_at_ms;
        self.sighting.segment_opened_at_ms = opened_at_ms.map(|opened_at_ms| opened_at_ms.min(self.sighting.now_ms));
        self.emit();
        self.note_memory();
        self.cut_if_due().await?;
        let late = self.state.windows().late_events();
        self.context.observer.late(late.saturating_sub(self.late_reported));
        self.late_reported = late;
        (self.sighting.sealing, self.sighting.sealing_since_ms) = self.sealing.under_way();
        self.sighting.without_records = self.log.without_records();
        self.context.observer.progress(&self.state, &self.sighting);
        Ok(())
    }

    /// Sends what has changed to the hot store, unless the last rows are still on their way: then they coalesce.
    fn emit(&mut self) {
        // Rows of a segment that is replayed would be stale; those of an undecided one must wait for its footer.
        if self.adopting.is_some() || self.hold_rows_until.is_some() || self.emission.is_under_way() {
            return;
        }
        let catching_up_after_ms = self.context.pacing.catching_up_after.as_millis() as i64;
        let provisional = self.sighting.lag_ms(self.state.position()) < catching_up_after_ms;
        let (windows, anomalies) = self.state.take_hot_rows(provisional);
        self.context.observer.flagged(anomalies.len());
        let rows = HotRows { windows, anomalies, sensors: self.state.take_sensors(), ..HotRows::default() };
        self.emission.send(self.context, rows, self.sighting.last_timestamp_ms);
    }

    async fn cut_if_due(&mut self) -> Result<(), Interrupt> {
        match self.reason_to_cut() {
            Some(reason) => self.cut(reason).await,
            None => Ok(()),
        }
    }

    fn reason_to_cut(&self) -> Option<&'static str> {
        // An adopted segment ends where its footer says.
        let opened_at_ms = self.sighting.segment_opened_at_ms.filter(|_| self.adopting.is_none())?;
        let pacing = &self.context.pacing;
        let age_ms = self.context.clock.now_ms() - opened_at_ms;
        if age_ms >= pacing.checkpoint_interval.as_millis() as i64 {
            return Some("checkpoint.interval");
        }
        if self.segment_bytes() >= pacing.max_segment_bytes {
            return Some("checkpoint.max_bytes");
        }
        if self.state.is_undecided() && age_ms >= pacing.emit_interval.as_millis() as i64 {
            return Some("a decision of the registry's must become durable");
        }
        // Where the store does not take what was cut before, another cut frees nothing, and costs a snapshot.
        let is_tight = self.context.budget.is_tight() && self.sealing.is_archive_idle();
        (is_tight && self.context.sizes.is_largest(self.context.partition)).then_some("limits.memory")
    }

    fn segment_bytes(&self) -> usize {
        let encoded = self.encoder.as_ref().map_or(0, SegmentEncoder::size);
        let dead_letters = self.dead_letters.as_ref().map_or(0, DeadLetterEncoder::size);
        encoded + dead_letters + self.state.waiting_bytes() + self.state.waiting_rejects().memory()
    }

    fn note_memory(&mut self) {
        self.reservation.resize(self.state.memory());
        self.sighting.segment_bytes = self.segment_bytes();
        self.context.sizes.note(self.context.partition, self.sighting.segment_bytes);
    }

    /// Hands the decoded rows to the encoder. Those of an adopted segment are in the archive already.
    async fn encode_rows(&mut self) -> Result<(), StoppedLoudly> {
        let taken = self.state.take_rows();
        let taken = taken.map_err(|error| StoppedLoudly::Internal(format!("cannot archive: {error}")))?;
        let Some(rows) = taken else { return Ok(()) };
        if self.adopting.is_some() {
            return Ok(());
        }
        self.encoder().write(rows).await;
        Ok(())
    }

    /// Hands rejected records to the encoder. Also those of an adopted segment: whether its dead letters exist is not known.
    async fn encode_rejects(&mut self, rejects: RejectedRecords) -> Result<(), StoppedLoudly> {
        if rejects.is_empty() {
            return Ok(());
        }
        let context = self.context;
        let encoder = match &mut self.dead_letters {
            Some(encoder) => encoder,
            none => {
                let file =
                    DeadLetterFile::new(&context.settings.topic, context.partition, context.format.compression());
                let file =
                    file.map_err(|error| StoppedLoudly::Internal(format!("cannot write dead letters: {error}")))?;
                none.insert(DeadLetterEncoder::new(file, context.lane.clone(), &context.budget))
            }
        };
        encoder.write(rejects).await;
        Ok(())
    }

    /// Of the open segment; made when it is first needed.
    fn encoder(&mut self) -> &mut SegmentEncoder {
        let context = self.context;
        let new_file = || SegmentFile::new((*context.format).clone());
        let make = || SegmentEncoder::new(new_file(), context.lane.clone(), &context.budget);
        self.encoder.get_or_insert_with(make)
    }

    /// Cuts the open segment at the current position and queues it for sealing.
    async fn cut(&mut self, reason: &'static str) -> Result<(), Interrupt> {
        self.encode_rows().await?;
        let Some(mut cut) = self.state.cut() else { return Ok(()) };
        self.encode_rejects(std::mem::take(&mut cut.rejects)).await?;
        let (topic, partition) = (self.context.settings.topic.as_str(), self.context.partition);
        log_cut(topic, partition, &cut, reason);
        let span = seal_span(topic, partition, cut.start..cut.end);
        self.context.observer.flagged(cut.anomalies.len());
        self.sighting.segment_opened_at_ms = None;
        let encoder = if let Some(footer) = self.adopting.take() {
            self.check_adopted(&footer, &cut)?;
            self.read_by_own_schema();
            None
        } else {
            // A segment of rejects alone has a file too, with no rows: the chain has no gaps.
            self.encoder().close().await;
            self.hold_rows_until = if cut.is_undecided { Some(cut.end) } else { self.hold_rows_until };
            self.encoder.take()
        };
        let rows = cut.window_rows.len() * size_of::<kappa_core::rows::WindowRow>();
        let reservation = self.context.budget.reserve(rows + cut.snapshot.len());
        let emitted_before = self.emission.so_far();
        let mut dead_letters = self.dead_letters.take();
        if let Some(encoder) = &mut dead_letters {
            encoder.close().await;
        }
        let segment = SegmentToSeal { cut, encoder, dead_letters, emitted_before, reservation, span };
        self.sealing.push(segment, self.context.clock.now_ms());
        self.note_memory();
        Ok(())
    }

    fn on_report(&mut self, report: SealReport) -> Result<(), Interrupt> {
        match report {
            SealReport::Durable { end } => {
                self.hold_rows_until = self.hold_rows_until.filter(|held| *held > end);
                Ok(())
            }
            SealReport::Committed => Ok(()),
            SealReport::LostTheRace => {
                let PartitionContext { settings, partition, .. } = &**self.context;
                tracing::info!(topic = settings.topic, partition, "another owner's cut stands: adopting it");
                Err(Interrupt::StartOver)
            }
            SealReport::NotTheOwner => Err(Interrupt::End(PartitionEnd::NotTheOwner)),
            SealReport::Stopped(stopped) => Err(stopped.into()),
        }
    }

    /// Asked to stop: seals what was taken in, so that nothing needs to be replayed.
    async fn finish(&mut self) -> Interrupt {
        // A segment that is being adopted is durable already; the next owner goes through it again.
        if self.adopting.is_none()
            && let Err(interrupt) = self.cut("stop").await
        {
            return interrupt;
        }
        while self.sealing.is_busy() {
            let report = self.sealing.next_report().await;
            if let Err(interrupt) = self.on_report(report) {
                return match interrupt {
                    // Somebody else is sealing what is left.
                    Interrupt::StartOver => Interrupt::End(PartitionEnd::NotTheOwner),
                    end @ Interrupt::End(_) => end,
                };
            }
        }
        self.context.observer.progress(&self.state, &self.sighting);
        Interrupt::End(PartitionEnd::Sealed)
    }
}

/// Ticks of all partitions fall together, so that their rows share an insert.
fn tick_after<R, H, C: WallClock>(context: &PartitionContext<R, H, C>) -> i64 {
    let interval_ms = context.pacing.emit_interval.as_millis().max(1) as i64;
    let now_ms = context.clock.now_ms();
    now_ms + interval_ms - now_ms.rem_euclid(interval_ms)
}
