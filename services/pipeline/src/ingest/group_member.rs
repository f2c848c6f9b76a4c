//! The client's callbacks. All but logging run on the ingest thread, within its `BaseConsumer::poll`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use kappa_core::record::LogBatch;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use super::AssignmentEvent;
use super::batch_queue::BatchQueue;
use super::broker_queries::topic_exists;
use super::partition_log::KafkaPartitionLog;
use super::shared::{Arrival, Outlet, Shared, Slot, lock};

/// The member's view of its group, and the context of the client.
pub(super) struct GroupMember {
    pub(super) shared: Arc<Shared>,
    pub(super) events: UnboundedSender<AssignmentEvent>,
    /// By partition number. Used by the ingest thread alone; the lock is for the compiler.
    pub(super) assignments: Mutex<Assignments>,
    /// Weak, because the queue must be gone before the client.
    pub(super) queue: OnceLock<Weak<BatchQueue<GroupMember>>>,
    commits: Mutex<HashMap<(i32, i64), Vec<CommitAnswer>>>,
}

type CommitAnswer = oneshot::Sender<Result<(), RDKafkaErrorCode>>;

/// The assigned partitions.
#[derive(Default)]
pub(super) struct Assignments {
    by_partition: Vec<Option<Assignment>>,
    pub(super) count: usize,
}

/// The ingest thread's side of an assigned partition.
pub(super) struct Assignment {
    pub(super) slot: Arc<Slot>,
    pub(super) channel: UnboundedSender<Arrival>,
    /// The last seek; none yet means that nothing is delivered.
    pub(super) epoch: Option<u64>,
    /// What lies below was delivered already.
    pub(super) next_offset: i64,
    /// The log lost the position, or nobody takes the records any more.
    pub(super) finished: bool,
    /// The last error that librdkafka goes on after, so that it is logged once.
    pub(super) last_error: Option<RDKafkaErrorCode>,
    /// What the current take has for this partition.
    pub(super) batch: LogBatch,
    /// Records and bytes that the current take has for this partition.
    pub(super) expected: (usize, usize),
}

impl Assignment {
    /// Where records go that were fetched after the seek of that number.
    pub(super) fn outlet(&self, epoch: u64) -> Outlet {
        Outlet { slot: Arc::clone(&self.slot), channel: self.channel.clone(), epoch }
    }
}

impl Assignments {
    pub(super) fn get_mut(&mut self, partition: i32) -> Option<&mut Assignment> {
        self.by_partition.get_mut(usize::try_from(partition).ok()?)?.as_mut()
    }

    /// The assignment that `slot` stands for, if it is still the current one.
    pub(super) fn of_slot(&mut self, slot: &Arc<Slot>) -> Option<&mut Assignment> {
        self.get_mut(slot.partition).filter(|assignment| Arc::ptr_eq(&assignment.slot, slot))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Assignment> {
        self.by_partition.iter_mut().flatten()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Assignment> {
        self.by_partition.iter().flatten()
    }

    fn insert(&mut self, assignment: Assignment) {
        let index = assignment.slot.partition as usize;
        if self.by_partition.len() <= index {
            self.by_partition.resize_with(index + 1, || None);
        }
        self.count += usize::from(self.by_partition[index].replace(assignment).is_none());
    }

    fn remove(&mut self, partition: i32) -> Option<Assignment> {
        let removed = self.by_partition.get_mut(usize::try_from(partition).ok()?)?.take();
        self.count -= usize::from(removed.is_some());
        removed
    }
}

impl GroupMember {
    pub(super) fn new(shared: Arc<Shared>, events: UnboundedSender<AssignmentEvent>) -> Self {
        Self { shared, events, assignments: Mutex::default(), queue: OnceLock::new(), commits: Mutex::default() }
    }

    /// Notes who waits for the result of a commit.
    pub(super) fn expect_commit(&self, partition: i32, offset: i64, answer: CommitAnswer) {
        lock(&self.commits).entry((partition, offset)).or_default().push(answer);
    }

    /// Tells whoever waits for a commit.
    pub(super) fn answer_commit(&self, partition: i32, offset: i64, result: Result<(), RDKafkaErrorCode>) {
        for answer in lock(&self.commits).remove(&(partition, offset)).unwrap_or_default() {
            let _ = answer.send(result);
        }
    }

    /// Says that the member cannot go on.
    pub(super) fn fatal(&self, reason: String) {
        self.shared.status.set_problem(Some(&reason));
        let _ = self.events.send(AssignmentEvent::Fatal(reason));
    }

    /// Takes on partitions: paused first, so that nothing is fetched before the worker knows from where.
    fn assign(&self, client: &BaseConsumer<Self>, partitions: &TopicPartitionList) -> KafkaResult<()> {
        let Some(queue) = self.queue.get().and_then(Weak::upgrade) else {
            return client.incremental_assign(&TopicPartitionList::new());
        };
        // Any position that is an offset: without one, librdkafka would ask for the committed offset, and until it has
        // that, a seek is refused. Nothing is fetched from it, because the partition is paused.
        let mut paused = TopicPartitionList::with_capacity(partitions.count());
        for partition in partitions.elements() {
            queue.forward(partition.partition());
            paused.add_partition_offset(partition.topic(), partition.partition(), Offset::Offset(0))?;
        }
        client.pause(&paused)?;
        match client.rebalance_protocol() {
            RebalanceProtocol::Cooperative => client.incremental_assign(&paused)?,
            _ => client.assign(&paused)?,
        }
        for partition in partitions.elements() {
            let slot = Arc::new(Slot::new(partition.partition()));
            let (channel, arrivals) = mpsc::unbounded_channel();
            lock(&self.assignments).insert(Assignment {
                slot: Arc::clone(&slot),
                channel,
                epoch: None,
                next_offset: 0,
                finished: false,
                last_error: None,
                batch: LogBatch::default(),
                expected: (0, 0),
            });
            let log = KafkaPartitionLog::new(Arc::clone(&self.shared), slot, arrivals);
            let _ = self.events.send(AssignmentEvent::Assigned(log));
        }
        Ok(())
    }

    fn note_nothing_assigned(&self) {
        if lock(&self.assignments).count == 0 {
            info!("the group has no partition for this member");
        }
        let (shared, events) = (Arc::clone(&self.shared), self.events.clone());
        // A topic that does not exist has no partition for anybody, and is no state to be content with.
        self.shared.runtime.spawn(async move {
            if topic_exists(&shared).await {
                let _ = events.send(AssignmentEvent::NothingAssigned);
            }
        });
    }

    /// Gives partitions up at once. Their workers hear of it and drop what is not sealed; nothing here waits for them.
    fn revoke(&self, client: &BaseConsumer<Self>, partitions: &TopicPartitionList) -> KafkaResult<()> {
        for partition in partitions.elements() {
            let removed = lock(&self.assignments).remove(partition.partition());
            let Some(assignment) = removed else { continue };
            assignment.slot.revoke();
            let _ = self.events.send(AssignmentEvent::Revoked { partition: partition.partition() });
        }
        match client.rebalance_protocol() {
            RebalanceProtocol::Cooperative => client.incremental_unassign(partitions),
            _ => client.unassign(),
        }
    }
}

impl ConsumerContext for GroupMember {
    fn rebalance(&self, client: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let numbers: Vec<i32> = partitions.elements().iter().map(TopicPartitionListElem::partition).collect();
        let lost = client.assignment_lost();
        let result = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.shared.brokers_answer();
            if numbers.is_empty() {
                self.note_nothing_assigned();
            } else {
                info!(partitions = ?numbers, "partitions assigned");
            }
            self.assign(client, partitions)
        } else {
            info!(partitions = ?numbers, lost, "partitions revoked");
            self.revoke(client, partitions)
        };
        if let Err(error) = result {
            self.fatal(format!("a rebalance of the consumer group failed: {error}"));
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let whole = result.map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail));
        for element in offsets.elements() {
            let own = element.error().map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail));
            if let Offset::Offset(offset) = element.offset() {
                self.answer_commit(element.partition(), offset, own.and(whole));
            }
        }
    }

    fn main_queue_min_poll_interval(&self) -> rdkafka::util::Timeout {
        Duration::from_millis(100).into()
    }
}

impl ClientContext for GroupMember {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // Connection failures of single brokers come again and again during an outage. That all are down is an
            // error event, logged once.
            _ if matches!(facility, "FAIL" | "ERROR" | "CONNECT") => {
                debug!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                error!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Warning => warn!(target: "librdkafka", facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => info!(target: "librdkafka", facility, "{message}"),
            RDKafkaLogLevel::Debug => debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.shared.client_error(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), reason);
    }

    fn stats(&self, _statistics: Statistics) {}

    fn stats_raw(&self, _statistics: &[u8]) {}
}
