//! Which partition is fetched from where, and by whom: what the broker threads, the leaders' task and the ingest thread
//! share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Notify;
use tracing::{debug, error, info};

use super::super::backpressure;
use super::super::broker_queries::Leaders;
use super::super::shared::{Outlet, Shared, Slot, lock};
use super::protocol::{EndOfEpoch, FetchPartition, FetchTerms, FetchedPartition};
use super::record_batch::{NextBatch, RecordBatches, Unreadable};
use super::settings::FetchSettings;
use crate::partition::seams::LogLost;

/// How often to look whether records may be fetched again; nobody says when memory is given back.
pub(super) const HELD_BACK: Duration = Duration::from_millis(5);
/// How long a broker may wait for records while a partition is left out of the request, which may soon have room again.
const SHORT_WAIT: Duration = Duration::from_millis(10);
/// The least to ask of a partition.
const SMALLEST_PART: usize = 64 << 10;
/// Arena bytes that come of a fetched byte, until it is known.
const EXPANSION: f32 = 3.0;

/// How often records that cannot be read are fetched again, without one readable record in between, before the partition
/// stops: what is damaged on the wire is well the next time, what is damaged in the log never is.
const READ_AGAIN: u32 = 3;

/// See the module.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) shared: Arc<Shared>,
    pub(super) settings: FetchSettings,
    state: Mutex<State>,
    /// Partitions, leaders or addresses have changed.
    changed: Condvar,
    /// Somebody has a partition without a leader.
    pub(super) leaders_wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    partitions: BTreeMap<i32, Partition>,
    /// As last asked.
    leaders: Leaders,
    /// The brokers that have a thread.
    threads: BTreeSet<i32>,
    /// Counts whatever makes an answer that is still to come worthless.
    generations: u64,
    /// Counts the answers that had records.
    answers: u64,
}

/// A partition that is fetched.
#[derive(Debug)]
struct Partition {
    outlet: Outlet,
    /// An answer to a question of another generation is dropped.
    generation: u64,
    /// From where to fetch next.
    position: i64,
    /// The broker to ask; none while that is being found out.
    leader: Option<i32>,
    /// In whose term as leader the last record was written; -1 where unknown.
    epoch: i32,
    /// A newer term that must not be read on before it is known that the log was not cut behind our back.
    unchecked_epoch: Option<i32>,
    /// Arena bytes of a fetched byte, as last seen.
    expansion: f32,
    /// Fetched bytes that are being read.
    unread: usize,
    /// Bytes of a batch that did not fit into the last answer.
    wanted_bytes: Option<usize>,
    /// The end of the log as last told; `i64::MAX` until then.
    high_watermark: i64,
    /// When it last got records, in answers: who waits longest is asked for first.
    served: u64,
    /// The last error that is gone on after, so that it is logged once.
    last_error: Option<RDKafkaErrorCode>,
    /// How often in a row what was fetched could not be read.
    unreadable: u32,
}

/// What a broker thread is to do next.
#[derive(Debug)]
pub(super) enum Task {
    Fetch(Question),
    /// Ask where the terms of leaders end: partition and term.
    CheckEpochs(Vec<(i32, i32)>),
    /// Nothing may be fetched now.
    Wait,
    /// None of the broker's partitions is ours any more.
    Leave,
}

/// A Fetch request, and what is needed to understand its answer.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) terms: FetchTerms,
    pub(super) partitions: Vec<FetchPartition>,
    /// Of each of the partitions.
    generations: Vec<u64>,
}

/// Records of one partition on their way from an answer to its worker.
#[derive(Debug)]
pub(super) struct Parcel<'a> {
    pub(super) partition: i32,
    pub(super) generation: u64,
    pub(super) outlet: Outlet,
    /// Records below are not wanted.
    pub(super) from: i64,
    pub(super) high_watermark: i64,
    pub(super) aborted: Vec<(i64, i64)>,
    /// Whole batches.
    pub(super) bytes: &'a [u8],
    /// How many records the batches say they have.
    pub(super) records: usize,
    /// How many bytes the partition may have undelivered; a little more is no harm.
    pub(super) share: usize,
    /// What is to be said behind the records.
    pub(super) lost: Option<LogLost>,
}

impl Board {
    pub(super) fn new(shared: Arc<Shared>, settings: FetchSettings) -> Self {
        Self { shared, settings, state: Mutex::default(), changed: Condvar::new(), leaders_wanted: Notify::new() }
    }

    /// Fetches a partition from `offset` on.
    pub(super) fn seek(&self, outlet: Outlet, offset: i64) {
        let mut state = lock(&self.state);
        state.generations += 1;
        let generation = state.generations;
        let number = outlet.slot.partition;
        let known = state.partitions.get(&number).filter(|known| Arc::ptr_eq(&known.outlet.slot, &outlet.slot));
        let leader = known.and_then(|known| known.leader).or_else(|| state.known_leader(number));
        let partition = Partition {
            outlet,
            generation,
            position: offset,
            leader,
            // A seek may go to where another term was.
            epoch: -1,
            unchecked_epoch: None,
            expansion: EXPANSION,
            unread: 0,
            wanted_bytes: None,
            high_watermark: i64::MAX,
            served: 0,
            last_error: None,
            unreadable: 0,
        };
        state.partitions.insert(number, partition);
        if leader.is_none() {
            self.leaders_wanted.notify_one();
        }
        self.changed.notify_all();
    }

    /// Fetches a partition no more, if it is still of that assignment.
    pub(super) fn forget(&self, slot: &Arc<Slot>) {
        let mut state = lock(&self.state);
        if state.partitions.get(&slot.partition).is_some_and(|known| Arc::ptr_eq(&known.outlet.slot, slot)) {
            state.partitions.remove(&slot.partition);
        }
    }

    /// Wakes all threads, so that they see that the consumer is stopping.
    pub(super) fn wake(&self) {
        drop(lock(&self.state));
        self.changed.notify_all();
    }

    /// Takes note of who leads. Whether everybody has a leader now, and the brokers that need a thread.
    ///
    /// A broker that has no address any more leads nobody: else its thread, once it has lost the connection, would wait for an
    /// address that nobody asks for.
    pub(super) fn set_leaders(&self, leaders: Leaders) -> (bool, Vec<i32>) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        state.leaders = leaders;
        let mut complete = true;
        let mut new = Vec::new();
        for (number, partition) in &mut state.partitions {
            if partition.leader.is_some_and(|leader| state.leaders.addresses.contains_key(&leader)) {
                continue;
            }
            partition.leader = state.leaders.of_partition.get(number).copied();
            complete &= partition.leader.is_some();
            if let Some(leader) = partition.leader.filter(|leader| state.threads.insert(*leader)) {
                new.push(leader);
            }
        }
        self.changed.notify_all();
        (complete, new)
    }

    /// Waits until the broker leads a partition of ours; its address. None when the consumer is stopping.
    pub(super) fn wait_for_partitions(&self, broker: i32) -> Option<(String, u16)> {
        let mut state = lock(&self.state);
        loop {
            if self.shared.is_stopping() {
                return None;
            }
            if state.leads(broker)
                && let Some(address) = state.leaders.addresses.get(&broker)
            {
                return Some(address.clone());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sleeps, unless the consumer is stopping.
    pub(super) fn pause(&self, pause: Duration) {
        let state = lock(&self.state);
        let going_on = |_: &mut State| !self.shared.is_stopping();
        drop(self.changed.wait_timeout_while(state, pause, going_on));
    }

    /// What to ask a broker next.
    pub(super) fn next_task(&self, broker: i32) -> Task {
        let mut state = lock(&self.state);
        state.partitions.retain(|_, partition| partition.outlet.slot.is_assigned());
        let mut ours: Vec<_> = state.partitions.values().filter(|ours| ours.leader == Some(broker)).collect();
        if ours.is_empty() {
            return Task::Leave;
        }
        let unchecked = ours.iter().filter(|partition| partition.unchecked_epoch.is_some());
        let unchecked: Vec<_> = unchecked.map(|partition| (partition.outlet.slot.partition, partition.epoch)).collect();
        if !unchecked.is_empty() {
            return Task::CheckEpochs(unchecked);
        }
        if self.shared.budget.is_exhausted() || self.shared.status.is_holding_back() {
            return Task::Wait;
        }
        ours.sort_by_key(|partition| partition.served);
        let share = backpressure::partition_share(&self.shared.limits, state.partitions.len());
        let now_ms = self.shared.now_ms();
        let mut question = Question { terms: self.terms(), partitions: Vec::new(), generations: Vec::new() };
        let (mut soon_again, mut behind) = (false, false);
        for partition in ours {
            let backlog = partition.outlet.slot.backlog(now_ms);
            let unread = partition.unread as f32 * partition.expansion;
            let room = share.saturating_sub(backlog.bytes + unread as usize);
            if backlog.paused || room == 0 {
                soon_again |= !backlog.paused;
                continue;
            }
            let part = (room as f32 / partition.expansion) as usize;
            let part = part.clamp(SMALLEST_PART, self.settings.partition_bytes.max(0) as usize + SMALLEST_PART);
            let part = part.min(self.settings.partition_bytes.max(0) as usize).max(partition.wanted_bytes.unwrap_or(1));
            question.partitions.push(FetchPartition {
                partition: partition.outlet.slot.partition,
                offset: partition.position,
                max_bytes: i32::try_from(part).unwrap_or(i32::MAX),
            });
            question.generations.push(partition.generation);
            behind |= partition.position < partition.high_watermark;
        }
        if question.partitions.is_empty() {
            return Task::Wait;
        }
        // Behind the end of the log there is something at once. It may be less than the least, since no more is asked for
        // than there is room for, and the broker would wait in vain.
        if behind || soon_again {
            question.terms.min_bytes = question.terms.min_bytes.min(1);
        }
        if soon_again {
            question.terms.max_wait_ms = question.terms.max_wait_ms.min(SHORT_WAIT.as_millis() as i32);
        }
        Task::Fetch(question)
    }

    fn terms(&self) -> FetchTerms {
        FetchTerms {
            max_wait_ms: self.settings.wait.as_millis() as i32,
            min_bytes: self.settings.min_bytes,
            max_bytes: self.settings.max_bytes,
            read_committed: self.settings.read_committed,
        }
    }

    /// Takes note of an answer, so that the next question can be asked before its records are read.
    pub(super) fn note<'a>(&self, question: &Question, answers: Vec<FetchedPartition<'a>>) -> Vec<Parcel<'a>> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let (mut parcels, mut failed) = (Vec::new(), false);
        let share = backpressure::partition_share(&self.shared.limits, state.partitions.len());
        state.answers += u64::from(answers.iter().any(|answer| !answer.records.is_empty()));
        for answer in answers {
            let asked = question.partitions.iter().position(|asked| asked.partition == answer.partition);
            let generation = asked.map(|index| question.generations[index]);
            let served = state.answers;
            let Some(partition) = state.partitions.get_mut(&answer.partition) else { continue };
            if generation != Some(partition.generation) {
                continue;
            }
            if answer.error != 0 {
                failed = true;
                parcels.extend(self.note_error(partition, &answer, share));
            } else {
                if partition.last_error.take().is_some() {
                    info!(partition = answer.partition, "Kafka can be read again");
                }
                partition.high_watermark = answer.high_watermark;
                if !answer.records.is_empty() {
                    partition.served = served;
                    parcels.extend(self.note_records(partition, answer, share, &mut state.generations));
                }
            }
        }
        for lost in parcels.iter().filter(|parcel| parcel.lost.is_some()) {
            state.partitions.remove(&lost.partition);
        }
        drop(guard);
        if !failed {
            self.shared.brokers_answer();
        }
        parcels
    }

    /// Walks over the headers of the batches: up to where they can be read, and what comes then.
    fn note_records<'a>(
        &self,
        partition: &mut Partition,
        answer: FetchedPartition<'a>,
        share: usize,
        generations: &mut u64,
    ) -> Option<Parcel<'a>> {
        let number = answer.partition;
        let (from, generation) = (partition.position, partition.generation);
        let (mut whole, mut records, mut lost) = (0, 0_usize, None);
        partition.wanted_bytes = None;
        let mut batches = RecordBatches::new(answer.records);
        loop {
            let next_batch = match batches.next() {
                // The checksum of a batch does not cover its offset, and what lies behind the end of the log was not read.
                Ok(NextBatch::Whole(batch)) if batch.end_offset > answer.high_watermark => {
                    Err(Unreadable::Header("offsets behind the end of the log"))
                }
                other => other,
            };
            match next_batch {
                Ok(NextBatch::End) => break,
                Ok(NextBatch::Whole(batch)) if batch.end_offset <= partition.position => {}
                Ok(NextBatch::Whole(batch)) => {
                    if partition.epoch >= 0 && batch.leader_epoch > partition.epoch {
                        partition.unchecked_epoch = Some(batch.leader_epoch);
                        partition.generation = next(generations);
                        break;
                    }
                    partition.epoch = batch.leader_epoch;
                    partition.position = batch.end_offset;
                    records = records.saturating_add(batch.records);
                    whole = answer.records.len() - batches.rest().len();
                }
                Ok(NextBatch::CutShort { bytes }) => {
                    let bytes = bytes.unwrap_or(self.settings.partition_bytes.max(1) as usize * 2);
                    if bytes > self.settings.frame_limit {
                        let limit = self.settings.frame_limit;
                        let reason =
                            format!("its batch of {bytes} bytes is more than {limit} (receive.message.max.bytes)");
                        lost = Some(self.unreadable(number, partition.position, &reason));
                    } else if whole == 0 {
                        partition.wanted_bytes = Some(bytes);
                    }
                    break;
                }
                Err(unreadable) => {
                    if partition.may_be_read_again() {
                        // What is under way behind it is dropped.
                        partition.generation = next(generations);
                    } else {
                        lost = Some(self.unreadable(number, partition.position, &unreadable.to_string()));
                    }
                    break;
                }
            }
        }
        if whole == 0 && lost.is_none() {
            if partition.wanted_bytes.is_none() && partition.unchecked_epoch.is_none() {
                // Asking again at once would go on like this for ever.
                self.trouble(partition, RDKafkaErrorCode::BadMessage);
            }
            return None;
        }
        partition.unread = whole;
        Some(Parcel {
            partition: number,
            generation,
            outlet: partition.outlet.clone(),
            from,
            high_watermark: answer.high_watermark,
            aborted: answer.aborted,
            bytes: &answer.records[..whole],
            records,
            share,
            lost,
        })
    }

    /// An error in place of records: either the log has lost the position, or it is tried again.
    fn note_error<'a>(
        &self,
        partition: &mut Partition,
        answer: &FetchedPartition<'a>,
        share: usize,
    ) -> Option<Parcel<'a>> {
        let (number, position) = (answer.partition, partition.position);
        let code = error_code(answer.error);
        let lost = match code {
            RDKafkaErrorCode::OffsetOutOfRange => self.no_longer_has(number, position, &code.to_string()),
            RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::MessageSizeTooLarge => self.unreadable(number, position, &code.to_string()),
            _ => {
                self.trouble(partition, code);
                return None;
            }
        };
        Some(Parcel {
            partition: number,
            generation: partition.generation,
            outlet: partition.outlet.clone(),
            from: position,
            high_watermark: answer.high_watermark,
            aborted: Vec::new(),
            bytes: &[],
            records: 0,
            share,
            lost: Some(lost),
        })
    }

    /// Goes on after an error when the leader is known again: the leaders' task waits longer and longer in between.
    fn trouble(&self, partition: &mut Partition, code: RDKafkaErrorCode) {
        let number = partition.outlet.slot.partition;
        partition.leader = None;
        self.leaders_wanted.notify_one();
        if partition.last_error.replace(code) == Some(code) {
            return;
        }
        match code {
            RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::ReplicaNotAvailable
            | RDKafkaErrorCode::FencedLeaderEpoch
            | RDKafkaErrorCode::UnknownLeaderEpoch
            | RDKafkaErrorCode::OffsetNotAvailable
            | RDKafkaErrorCode::UnknownTopicOrPartition => debug!(partition = number, "looking for its leader: {code}"),
            _ => error!(partition = number, "Kafka cannot be read at the moment, trying on: {code}"),
        }
        self.shared.client_error(code, &format!("partition {number} of `{}`", self.shared.topic));
    }

    /// Takes note of where the terms of leaders end: whether what we have read is still in the log.
    pub(super) fn note_epochs(&self, asked: &[(i32, i32)], ends: &[EndOfEpoch]) {
        let mut state = lock(&self.state);
        for (number, epoch) in asked {
            let Some(partition) = state.partitions.get_mut(number) else { continue };
            let Some(unchecked) = partition.unchecked_epoch.take_if(|_| partition.epoch == *epoch) else { continue };
            let end = ends.iter().find(|end| end.partition == *number);
            match end {
                Some(end) if end.error == 0 && (0..partition.position).contains(&end.end_offset) => {
                    let reason = format!(
                        "the log was cut at offset {} by an unclean leader election, and what was read behind it is no \
                         longer what it holds",
                        end.end_offset
                    );
                    let lost = self.no_longer_has(*number, partition.position, &reason);
                    partition.outlet.lose(lost);
                    state.partitions.remove(number);
                }
                Some(end) if end.error == 0 => {
                    debug!(partition = number, "the leader's term {unchecked} continues what was read");
                    partition.epoch = unchecked;
                }
                other => {
                    partition.unchecked_epoch = Some(unchecked);
                    self.trouble(partition, error_code(other.map_or(-1, |end| end.error)));
                }
            }
        }
    }

    /// What a parcel has become: bytes in the arenas.
    pub(super) fn note_read(&self, parcel: &Parcel<'_>, arena_bytes: usize) {
        let mut state = lock(&self.state);
        let Some(partition) = state.partitions.get_mut(&parcel.partition) else { return };
        partition.unread = 0;
        if arena_bytes > 0 {
            partition.unreadable = 0;
        }
        if !parcel.bytes.is_empty() && partition.generation == parcel.generation {
            partition.expansion = (arena_bytes as f32 / parcel.bytes.len() as f32).clamp(0.1, 1_000.0);
        }
    }

    /// Fetches again from `offset` what there was no room for. Whether that is possible: not once the partition has
    /// another generation.
    pub(super) fn rewind(&self, parcel: &Parcel<'_>, offset: i64) -> bool {
        let mut state = lock(&self.state);
        let generation = next(&mut state.generations);
        let Some(partition) = state.partitions.get_mut(&parcel.partition) else { return true };
        if partition.generation != parcel.generation {
            return false;
        }
        partition.generation = generation;
        partition.position = offset;
        true
    }

    /// Fetches again from `offset` what could not be read: a wire may have damaged it. Whether that is worth another try.
    pub(super) fn read_again(&self, parcel: &Parcel<'_>, offset: i64) -> bool {
        let mut state = lock(&self.state);
        let generation = next(&mut state.generations);
        let Some(partition) = state.partitions.get_mut(&parcel.partition) else { return true };
        if partition.generation == parcel.generation {
            partition.generation = generation;
            partition.position = offset;
            return partition.may_be_read_again();
        }
        // Whoever sought meanwhile finds out anew.
        true
    }

    /// The connection to a broker is gone: its partitions may have another leader soon.
    pub(super) fn connection_lost(&self, broker: i32) {
        let mut state = lock(&self.state);
        for partition in state.partitions.values_mut().filter(|partition| partition.leader == Some(broker)) {
            partition.leader = None;
            partition.unread = 0;
        }
        self.leaders_wanted.notify_one();
    }

    /// What is said when the log does not have a position any more.
    fn no_longer_has(&self, partition: i32, offset: i64, why: &str) -> LogLost {
        LogLost(format!("partition {partition} of `{}` no longer has offset {offset}: {why}", self.shared.topic))
    }

    /// What is said when records cannot be read.
    pub(super) fn unreadable(&self, partition: i32, offset: i64, why: &str) -> LogLost {
        LogLost(format!("partition {partition} of `{}` cannot be read at offset {offset}: {why}", self.shared.topic))
    }
}

impl Partition {
    fn may_be_read_again(&mut self) -> bool {
        self.unreadable += 1;
        self.unreadable <= READ_AGAIN
    }
}

impl State {
    /// The leader by what was last asked, where its thread runs already.
    fn known_leader(&self, partition: i32) -> Option<i32> {
        self.leaders.of_partition.get(&partition).copied().filter(|leader| self.threads.contains(leader))
    }

    fn leads(&self, broker: i32) -> bool {
        self.partitions.values().any(|partition| partition.leader == Some(broker))
    }
}

fn next(generations: &mut u64) -> u64 {
    *generations += 1;
    *generations
}

/// librdkafka's name of an error code of the protocol; only of those that say something about a partition.
fn error_code(code: i16) -> RDKafkaErrorCode {
    const NAMED: [RDKafkaErrorCode; 14] = [
        RDKafkaErrorCode::OffsetOutOfRange,
        RDKafkaErrorCode::InvalidMessage,
        RDKafkaErrorCode::UnknownTopicOrPartition,
        RDKafkaErrorCode::InvalidMessageSize,
        RDKafkaErrorCode::LeaderNotAvailable,
        RDKafkaErrorCode::NotLeaderForPartition,
        RDKafkaErrorCode::RequestTimedOut,
        RDKafkaErrorCode::ReplicaNotAvailable,
        RDKafkaErrorCode::MessageSizeTooLarge,
        RDKafkaErrorCode::TopicAuthorizationFailed,
        RDKafkaErrorCode::KafkaStorageError,
        RDKafkaErrorCode::FencedLeaderEpoch,
        RDKafkaErrorCode::UnknownLeaderEpoch,
        RDKafkaErrorCode::OffsetNotAvailable,
    ];
    NAMED.into_iter().find(|named| *named as i32 == i32::from(code)).unwrap_or(RDKafkaErrorCode::Unknown)
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
