//! One partition of a topic, and the group coordinator that says who owns it.

use std::sync::{Arc, Mutex};

use kappa_core::record::LogBatch;
use kappa_pipeline::memory::MemoryBudget;
use kappa_pipeline::partition::seams::{Delivery, GroupOffsets, LogBounds, LogLost, NotTheOwner, PartitionLog};
use tokio::sync::Notify;

use crate::mutation::Mutation;
use crate::records::SimRecord;
use crate::world::{World, lock};

/// The log and the group, as the brokers know them.
pub(crate) struct Brokers {
    pub(crate) world: Arc<World>,
    records: Mutex<Vec<SimRecord>>,
    topic_id: Mutex<&'static str>,
    appended: Notify,
    group: Mutex<Group>,
    start: Start,
    /// Called at each commit with the offset where the log began for the group, and the committed one: invariant C is
    /// looked at right then.
    check_commit: Box<dyn Fn(i64, i64) + Send + Sync>,
}

impl std::fmt::Debug for Brokers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Brokers").field("group", &self.group).finish_non_exhaustive()
    }
}

/// Where a group begins that has no offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Earliest,
    Latest,
}

#[derive(Debug, Default)]
struct Group {
    /// The first offset that was ever committed.
    first: Option<i64>,
    committed: Option<i64>,
    /// The member that owns the partition; others are fenced.
    owner: u64,
}

impl Brokers {
    pub(crate) fn new(
        world: &Arc<World>,
        start: Start,
        check_commit: impl Fn(i64, i64) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            records: Mutex::default(),
            topic_id: Mutex::new("one"),
            start,
            appended: Notify::new(),
            group: Mutex::default(),
            check_commit: Box::new(check_commit),
        })
    }

    pub(crate) fn append(&self, make: impl FnOnce(i64) -> SimRecord) {
        let mut records = lock(&self.records);
        // Now and then a gap, as transaction markers and compaction leave them.
        let gap = if self.world.happens(3) { self.world.below(3) as i64 } else { 0 };
        let offset = records.last().map_or(0, |last| last.offset + 1) + gap;
        records.push(make(offset));
        self.appended.notify_waiters();
    }

    pub(crate) fn records(&self) -> Vec<SimRecord> {
        lock(&self.records).clone()
    }

    /// The topic is deleted and created again, with at least as many records as before. Returns those of the old one.
    pub(crate) fn recreate(&self, make: impl Fn(i64) -> SimRecord) -> Vec<SimRecord> {
        let mut records = lock(&self.records);
        let count = records.last().map_or(0, |last| last.offset + 1) + self.world.below(100) as i64;
        let old = std::mem::replace(&mut *records, (0..count).map(make).collect());
        *lock(&self.topic_id) = "two";
        self.appended.notify_waiters();
        old
    }

    /// Where the log began for the group.
    pub(crate) fn first(&self) -> i64 {
        lock(&self.group).first.unwrap_or(0)
    }

    pub(crate) fn end(&self) -> i64 {
        lock(&self.records).last().map_or(0, |last| last.offset + 1)
    }

    pub(crate) fn committed(&self) -> Option<i64> {
        lock(&self.group).committed
    }

    /// Makes `member` the owner and gives it its view of the partition.
    pub(crate) fn assign(self: &Arc<Self>, member: u64) -> SimLog {
        lock(&self.group).owner = member;
        SimLog { brokers: Arc::clone(self), member, position: None, budget: MemoryBudget::new(1 << 30) }
    }
}

/// The partition as one member sees it.
#[derive(Debug)]
pub(crate) struct SimLog {
    brokers: Arc<Brokers>,
    member: u64,
    position: Option<i64>,
    budget: Arc<MemoryBudget>,
}

impl SimLog {
    fn available(&self, position: i64) -> Option<Delivery> {
        let records = lock(&self.brokers.records);
        let start = records.partition_point(|record| record.offset < position);
        let count = 1 + self.brokers.world.below(40) as usize;
        let mut batch = LogBatch::default();
        for record in records[start..].iter().take(count) {
            batch.push(record.offset, record.timestamp_ms, Some(&record.key), record.value.as_deref(), []);
        }
        let high_watermark = Some(records.last().map_or(0, |last| last.offset + 1));
        (!batch.is_empty()).then(|| Delivery { batch, high_watermark, reservation: self.budget.reserve(1) })
    }
}

impl PartitionLog for SimLog {
    type Group = SimGroup;

    async fn next(&mut self) -> Result<Delivery, LogLost> {
        let Some(position) = self.position else {
            self.brokers.world.breaks("records were asked for before a seek".to_owned());
            return std::future::pending().await;
        };
        let brokers = Arc::clone(&self.brokers);
        loop {
            let appended = brokers.appended.notified();
            if let Some(delivery) = self.available(position) {
                self.position = delivery.batch.end_offset();
                return Ok(delivery);
            }
            appended.await;
        }
    }

    async fn seek(&mut self, offset: i64) -> Result<(), LogLost> {
        self.brokers.world.delay().await;
        self.position = Some(offset);
        Ok(())
    }

    async fn bounds(&self) -> LogBounds {
        self.brokers.world.delay().await;
        LogBounds {
            low_watermark: 0,
            high_watermark: self.brokers.end(),
            topic_id: Some((*lock(&self.brokers.topic_id)).to_owned()),
        }
    }

    async fn resolve_start(&self) -> i64 {
        self.brokers.world.delay().await;
        match self.brokers.start {
            Start::Earliest => 0,
            Start::Latest => self.brokers.end(),
        }
    }

    fn group(&self) -> SimGroup {
        SimGroup { brokers: Arc::clone(&self.brokers), member: self.member }
    }
}

/// The group as one member sees it.
#[derive(Debug, Clone)]
pub(crate) struct SimGroup {
    brokers: Arc<Brokers>,
    member: u64,
}

impl GroupOffsets for SimGroup {
    async fn committed(&self) -> Option<i64> {
        self.brokers.world.delay().await;
        self.brokers.committed()
    }

    async fn topic_id(&self) -> Option<String> {
        self.brokers.world.delay().await;
        let topic_id = *lock(&self.brokers.topic_id);
        self.brokers.world.delay().await;
        Some(topic_id.to_owned())
    }

    async fn commit(&self, offset: i64) -> Result<(), NotTheOwner> {
        let world = &self.brokers.world;
        world.delay().await;
        let first = {
            let mut group = lock(&self.brokers.group);
            if group.owner != self.member && !world.breaks_rule(Mutation::CommitByAZombie) {
                world.count(|outcome| outcome.refused_commits += 1);
                return Err(NotTheOwner(format!("member {} was fenced", self.member)));
            }
            if group.committed.is_some_and(|committed| committed > offset) {
                world.breaks(format!("the committed offset went back from {:?} to {offset}", group.committed));
            }
            group.committed = Some(offset);
            *group.first.get_or_insert(offset)
        };
        (self.brokers.check_commit)(first, offset);
        // The acknowledgement takes its time; a crash may come before it.
        world.delay().await;
        Ok(())
    }
}
