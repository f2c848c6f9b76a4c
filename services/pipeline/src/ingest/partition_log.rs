//! The worker's side of one assigned partition.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::broker_queries as brokers;
use super::shared::{Arrival, Command, Shared, Slot};
use crate::config::StartPolicy;
use crate::partition::seams::{Delivery, GroupOffsets, LogBounds, LogLost, NotTheOwner, PartitionLog};

/// How long to ask for the bounds that go into the message about a lost position.
const ASK_BOUNDS_WITHIN: Duration = Duration::from_secs(3);

/// One assigned partition of the topic. After a revoke it delivers nothing more and refuses commits.
#[derive(Debug)]
pub struct KafkaPartitionLog {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    arrivals: UnboundedReceiver<Arrival>,
    /// Counts the seeks. What arrives with another number was fetched before the last one.
    epoch: u64,
    /// Set for good once the log lost the position.
    lost: Option<LogLost>,
}

impl KafkaPartitionLog {
    pub(super) fn new(shared: Arc<Shared>, slot: Arc<Slot>, arrivals: UnboundedReceiver<Arrival>) -> Self {
        Self { shared, slot, arrivals, epoch: 0, lost: None }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.shared.topic
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.slot.partition
    }

    /// Counts what came out of the channel, and keeps it only if it is of the last seek.
    fn receive(&mut self, arrival: Arrival) -> Option<Delivery> {
        match arrival {
            Arrival::Lost(lost) => {
                self.lost = Some(lost);
                None
            }
            Arrival::Records { epoch, delivery } => {
                if self.slot.taken(delivery.batch.memory(), self.shared.now_ms()) {
                    self.shared.wake();
                }
                (epoch == self.epoch).then_some(delivery)
            }
        }
    }

    /// Adds to the message what the log does have, if the brokers say so soon.
    async fn explain_loss(&mut self) {
        let ask = brokers::watermarks(&self.shared, self.slot.partition);
        let Ok((low, high)) = tokio::time::timeout(ASK_BOUNDS_WITHIN, ask).await else { return };
        if let Some(lost) = &mut self.lost {
            lost.0 = format!("{}; the log now holds offsets {low} to {high}", lost.0);
        }
    }
}

impl PartitionLog for KafkaPartitionLog {
    type Group = KafkaGroup;

    /// May be dropped half-way and called again: nothing that arrived is lost.
    async fn next(&mut self) -> Result<Delivery, LogLost> {
        loop {
            if let Some(lost) = &self.lost {
                return Err(lost.clone());
            }
            if !self.slot.is_assigned() {
                return std::future::pending().await;
            }
            let Some(arrival) = self.arrivals.recv().await else { return std::future::pending().await };
            if let Some(delivery) = self.receive(arrival) {
                return Ok(delivery);
            }
            if self.lost.is_some() {
                self.explain_loss().await;
            }
        }
    }

    async fn seek(&mut self, offset: i64) -> Result<(), LogLost> {
        self.epoch += 1;
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.receive(arrival);
        }
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let (answer, answered) = oneshot::channel();
        self.shared.send(Command::Seek { slot: Arc::clone(&self.slot), offset, epoch: self.epoch, answer });
        match answered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(lost)) => {
                self.lost = Some(lost.clone());
                Err(lost)
            }
            Err(_) => std::future::pending().await,
        }
    }

    async fn bounds(&self) -> LogBounds {
        let topic_id = brokers::topic_id(&self.shared, self.slot.partition).await;
        let (low_watermark, high_watermark) = brokers::watermarks(&self.shared, self.slot.partition).await;
        LogBounds { low_watermark, high_watermark, topic_id }
    }

    fn without_records(&self) -> Option<(i64, i64)> {
        self.slot.without_records()
    }

    async fn resolve_start(&self) -> i64 {
        let partition = self.slot.partition;
        let wanted = match self.shared.start {
            StartPolicy::Earliest => Some(0),
            StartPolicy::Latest => None,
            StartPolicy::Timestamp(timestamp_ms) => brokers::offset_at(&self.shared, partition, timestamp_ms).await,
        };
        let (low, high) = brokers::watermarks(&self.shared, partition).await;
        wanted.map_or(high, |wanted| wanted.clamp(low, high))
    }

    fn group(&self) -> KafkaGroup {
        KafkaGroup { shared: Arc::clone(&self.shared), slot: Arc::clone(&self.slot) }
    }
}

/// The group's side of one assigned partition.
#[derive(Debug, Clone)]
pub struct KafkaGroup {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
}

impl GroupOffsets for KafkaGroup {
    async fn committed(&self) -> Option<i64> {
        brokers::committed(&self.shared, self.slot.partition).await
    }

    async fn topic_id(&self) -> Option<String> {
        brokers::topic_id_now(&self.shared, self.slot.partition).await
    }

    /// Every refusal is tried again while the partition is ours. In the midst of a cooperative rebalance a member keeps
    /// its partitions while its generation is already stale; and when the group really has fenced it, librdkafka
    /// revokes the partition, which ends this.
    async fn commit(&self, offset: i64) -> Result<(), NotTheOwner> {
        let partition = self.slot.partition;
        let mut pauses = brokers::pauses();
        let mut last_error = None;
        while self.slot.is_assigned() {
            let (answer, answered) = oneshot::channel();
            self.shared.send(Command::Commit { slot: Arc::clone(&self.slot), offset, answer });
            match answered.await {
                Ok(Ok(())) if last_error.is_some() => {
                    info!(topic = self.shared.topic, partition, offset, "committed after all");
                    return Ok(());
                }
                Ok(Ok(())) => return Ok(()),
                Ok(Err(code)) if last_error != Some(code) => {
                    warn!(
                        topic = self.shared.topic,
                        partition, offset, "the offset could not be committed, trying on: {code}"
                    );
                    last_error = Some(code);
                }
                Ok(Err(code)) => debug!(partition, offset, "the offset still could not be committed: {code}"),
                // The thread found it revoked, or is gone.
                Err(_) => break,
            }
            tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(1))).await;
        }
        let reason = last_error.map_or_else(|| "it was revoked".to_owned(), |code| code.to_string());
        Err(NotTheOwner(format!("partition {partition} is not ours any more: {reason}")))
    }
}
