use std::sync::mpsc;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::super::super::IngestLimits;
use super::super::super::properties::tests::kafka;
use super::super::super::shared::Arrival;
use super::super::broker_thread::BrokerThread;
use super::super::protocol::read_fetch;
use super::super::test_batches::{SentBatch, SentPartition, fetch_response};
use super::*;
use crate::memory::MemoryBudget;

const BROKER: i32 = 7;

/// A board with one partition that broker 7 leads, and without any network.
struct Bench {
    board: Arc<Board>,
    slot: Arc<Slot>,
    arrivals: UnboundedReceiver<Arrival>,
    channel: tokio::sync::mpsc::UnboundedSender<Arrival>,
    _runtime: Runtime,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (config, limits) = (kafka(&[]), IngestLimits::default());
        let settings = FetchSettings::new(&config, &limits, 1 << 30).unwrap();
        let budget = MemoryBudget::new(1 << 30);
        let shared = Shared::new(&config, limits, budget, runtime.handle().clone(), mpsc::channel().0);
        let board = Arc::new(Board::new(Arc::new(shared), settings));
        let (channel, arrivals) = unbounded_channel();
        let bench = Self { board, slot: Arc::new(Slot::new(0)), arrivals, channel, _runtime: runtime };
        bench.seek(100, 1);
        assert_eq!(bench.lead(), (true, vec![BROKER]));
        bench
    }

    /// The partition has broker 7 as its leader.
    fn lead(&self) -> (bool, Vec<i32>) {
        let addresses = [(BROKER, ("broker".to_owned(), 9092))].into();
        self.board.set_leaders(Leaders { of_partition: [(0, BROKER)].into(), addresses })
    }

    fn seek(&self, offset: i64, epoch: u64) {
        let outlet = Outlet { slot: Arc::clone(&self.slot), channel: self.channel.clone(), epoch };
        self.board.seek(outlet, offset);
    }

    fn question(&self) -> Question {
        match self.board.next_task(BROKER) {
            Task::Fetch(question) => question,
            other => panic!("{other:?}"),
        }
    }

    /// From where it fetches next.
    fn position(&self) -> i64 {
        self.question().partitions[0].offset
    }

    /// Takes an answer with these records to the end.
    fn answer(&self, question: &Question, error: i16, records: Vec<u8>) {
        let partition = SentPartition { partition: 0, error, aborted: Vec::new(), records };
        let body = fetch_response("events", &[partition]);
        let parcels = self.board.note(question, read_fetch(&body, "events").unwrap().partitions);
        let mut thread = BrokerThread::new(BROKER, Arc::clone(&self.board));
        for parcel in parcels {
            thread.deliver(&parcel);
        }
    }

    /// What has arrived: the epochs and offsets of records, and why the log was lost.
    fn arrived(&mut self) -> (Vec<(u64, i64)>, Option<String>) {
        let (mut records, mut lost) = (Vec::new(), None);
        while let Ok(arrival) = self.arrivals.try_recv() {
            match arrival {
                Arrival::Records { epoch, delivery } => {
                    self.slot.taken(delivery.batch.memory(), 0);
                    records.extend(delivery.batch.iter().map(|record| (epoch, record.offset)));
                }
                Arrival::Lost(reason) => lost = Some(reason.0),
            }
        }
        (records, lost)
    }

    fn has_ended(&self) -> bool {
        matches!(self.board.next_task(BROKER), Task::Leave)
    }
}

fn offsets(epoch: u64, range: std::ops::Range<i64>) -> Vec<(u64, i64)> {
    range.map(|offset| (epoch, offset)).collect()
}

#[test]
fn the_position_follows_the_batches() {
    let mut bench = Bench::new();
    let question = bench.question();
    assert_eq!(question.partitions[0].offset, 100);
    // The first batch begins below the position; the third is cut short.
    let mut records = [SentBatch::simple(95, 10).encode(), SentBatch::simple(105, 10).encode()].concat();
    records.extend(&SentBatch::simple(115, 10).encode()[..70]);
    bench.answer(&question, 0, records);
    assert_eq!(bench.arrived(), (offsets(1, 100..115), None));
    assert_eq!(bench.position(), 115);
    // Markers and aborted records move it, and are not delivered.
    let question = bench.question();
    let control = SentBatch { control: true, transactional: true, ..SentBatch::simple(115, 1) };
    bench.answer(&question, 0, control.encode());
    assert_eq!(bench.arrived(), (Vec::new(), None));
    assert_eq!(bench.position(), 116);
}

#[test]
fn many_records_become_several_deliveries() {
    let mut bench = Bench::new();
    let mut batches = Vec::new();
    for index in 0..10 {
        batches.extend(SentBatch::simple(100 + index * 700, 700).encode());
    }
    let question = bench.question();
    bench.answer(&question, 0, batches);
    let mut sizes = Vec::new();
    while let Ok(Arrival::Records { delivery, .. }) = bench.arrivals.try_recv() {
        sizes.push(delivery.batch.len());
        assert!(delivery.batch.memory() < 2 * delivery.batch.byte_len() + 64_000, "room for no more than there is");
    }
    assert_eq!(sizes, [2_000, 2_000, 2_000, 1_000]);
}

#[test]
fn answers_to_questions_before_a_seek_are_dropped() {
    let mut bench = Bench::new();
    let question = bench.question();
    bench.seek(500, 2);
    bench.answer(&question, 0, SentBatch::simple(100, 10).encode());
    assert_eq!(bench.arrived(), (Vec::new(), None));
    assert_eq!(bench.position(), 500);
    // Errors as well: the position that is out of range is not the one of now.
    bench.answer(&question, 1, Vec::new());
    assert_eq!(bench.arrived(), (Vec::new(), None));
    assert_eq!(bench.position(), 500);
}

#[test]
fn a_batch_that_does_not_fit_is_asked_for_by_its_size() {
    let bench = Bench::new();
    let question = bench.question();
    let batch = SentBatch::simple(100, 100_000).encode();
    assert!(batch.len() > question.partitions[0].max_bytes as usize);
    bench.answer(&question, 0, batch[..1_000].to_vec());
    assert_eq!(bench.question().partitions[0].max_bytes as usize, batch.len());
    bench.answer(&bench.question(), 0, batch);
    assert_eq!(bench.position(), 100_100);
    // One that can never arrive is not waited for.
    let mut endless = SentBatch::simple(100_100, 10).encode();
    endless[8..12].copy_from_slice(&200_000_000_i32.to_be_bytes());
    let mut bench = bench;
    bench.arrived();
    bench.answer(&bench.question(), 0, endless);
    let lost = bench.arrived().1.unwrap();
    assert!(lost.contains("offset 100100") && lost.contains("receive.message.max.bytes"), "{lost}");
}

#[test]
fn a_lost_position_and_unreadable_records_end_the_partition() {
    let mut bench = Bench::new();
    bench.answer(&bench.question(), 1, Vec::new());
    let lost = bench.arrived().1.unwrap();
    assert!(lost.contains("partition 0 of `events` no longer has offset 100"), "{lost}");
    assert!(bench.has_ended());

    // Old formats do not get newer by fetching them again.
    let mut old = SentBatch::simple(110, 10).encode();
    old[16] = 1;
    let (records, lost) = read_in_vain(&old);
    assert_eq!(records, offsets(1, 100..110));
    assert!(lost.contains("set kafka.fetcher = \"librdkafka\""), "{lost}");
}

/// Answers with a good batch and a bad one, then with the bad one alone until the partition ends.
fn read_in_vain(bad: &[u8]) -> (Vec<(u64, i64)>, String) {
    let mut bench = Bench::new();
    bench.answer(&bench.question(), 0, [SentBatch::simple(100, 10).encode(), bad.to_vec()].concat());
    let (mut records, mut lost) = bench.arrived();
    assert_eq!(lost, None, "it is tried again");
    for _ in 0..=READ_AGAIN {
        bench.lead();
        assert_eq!(bench.position(), 110, "from where it could not be read");
        bench.answer(&bench.question(), 0, bad.to_vec());
        let (more, why) = bench.arrived();
        records.extend(more);
        lost = why;
        if lost.is_some() {
            break;
        }
    }
    assert!(bench.has_ended());
    (records, lost.expect("it is not tried for ever"))
}

#[test]
fn what_is_damaged_on_the_wire_is_fetched_again() {
    let mut damaged = SentBatch::simple(110, 10).encode();
    *damaged.last_mut().unwrap() ^= 1;
    let (records, lost) = read_in_vain(&damaged);
    assert_eq!(records, offsets(1, 100..110), "what is before the damage arrives");
    assert!(lost.contains("cannot be read at offset 110") && lost.contains("checksum"), "{lost}");

    // Its offset is not covered by the checksum.
    let mut misplaced = SentBatch::simple(110, 10).encode();
    misplaced[1] ^= 1;
    let (records, lost) = read_in_vain(&misplaced);
    assert_eq!(records, offsets(1, 100..110));
    assert!(lost.contains("behind the end of the log"), "{lost}");

    // Now and then is no harm.
    let mut bench = Bench::new();
    for start in (100..200).step_by(10) {
        bench.lead();
        let good = SentBatch::simple(start, 10).encode();
        let mut damaged = good.clone();
        *damaged.last_mut().unwrap() ^= 1;
        bench.answer(&bench.question(), 0, damaged);
        bench.lead();
        bench.answer(&bench.question(), 0, good);
        assert_eq!(bench.arrived(), (offsets(1, start..start + 10), None));
    }
}

#[test]
fn passing_errors_lead_to_the_leader() {
    let bench = Bench::new();
    for code in [3, 5, 6, 9, 29, 56, 74, 75, 78, 999] {
        bench.answer(&bench.question(), code, Vec::new());
        assert!(bench.has_ended(), "{code}: its leader is not known");
        let addresses = [(BROKER, ("elsewhere".to_owned(), 9092))].into();
        let leaders = Leaders { of_partition: [(0, BROKER)].into(), addresses };
        assert_eq!(bench.board.set_leaders(leaders), (true, Vec::new()));
        assert_eq!(bench.position(), 100);
        let problem = bench.board.shared.status.problem();
        assert_eq!(problem.is_some(), code == 29, "{code}: {problem:?}");
        bench.answer(&bench.question(), 0, Vec::new());
        assert_eq!(bench.board.shared.status.problem(), None);
    }
    assert_eq!(bench.board.wait_for_partitions(BROKER), Some(("elsewhere".to_owned(), 9092)));
    bench.board.connection_lost(BROKER);
    assert!(bench.has_ended());
}

#[test]
fn a_leader_without_an_address_is_looked_for_again() {
    let bench = Bench::new();
    // So answers a broker that has just started and is not a member of its own cluster yet.
    assert_eq!(bench.board.set_leaders(Leaders::default()), (false, Vec::new()));
    assert!(bench.has_ended());
    assert_eq!(bench.lead(), (true, Vec::new()));
    assert_eq!(bench.board.wait_for_partitions(BROKER), Some(("broker".to_owned(), 9092)));
}

#[test]
fn a_newer_term_is_read_only_when_the_older_one_is_whole() {
    for (end_offset, is_lost) in [(110, false), (150, false), (-1, false), (109, true), (0, true)] {
        let mut bench = Bench::new();
        let newer = SentBatch { leader_epoch: 4, ..SentBatch::simple(110, 10) }.encode();
        let records = [SentBatch { leader_epoch: 2, ..SentBatch::simple(100, 10) }.encode(), newer.clone()].concat();
        bench.answer(&bench.question(), 0, records);
        assert_eq!(bench.arrived(), (offsets(1, 100..110), None));
        let Task::CheckEpochs(asked) = bench.board.next_task(BROKER) else { panic!("not checked") };
        assert_eq!(asked, [(0, 2)]);
        bench.board.note_epochs(&asked, &[EndOfEpoch { partition: 0, error: 0, end_offset }]);
        if is_lost {
            let lost = bench.arrived().1.unwrap();
            assert!(lost.contains("no longer has offset 110") && lost.contains("unclean"), "{lost}");
            assert!(bench.has_ended());
        } else {
            assert_eq!(bench.position(), 110);
            bench.answer(&bench.question(), 0, newer);
            assert_eq!(bench.arrived(), (offsets(1, 110..120), None));
        }
    }
    // A broker that cannot say is asked again, or another one is.
    let bench = Bench::new();
    let records = [2, 4].map(|leader_epoch| {
        let base_offset = 100 + 10 * i64::from(leader_epoch);
        SentBatch { leader_epoch, ..SentBatch::simple(base_offset, 10) }.encode()
    });
    bench.answer(&bench.question(), 0, records.concat());
    bench.board.note_epochs(&[(0, 2)], &[EndOfEpoch { partition: 0, error: 6, end_offset: -1 }]);
    assert!(bench.has_ended(), "its leader is not known");
}

#[test]
fn a_broker_waits_for_more_only_at_the_end_of_the_log() {
    let mut bench = Bench::new();
    let terms = |question: &Question| (question.terms.min_bytes, question.terms.max_wait_ms);
    let question = bench.question();
    assert_eq!(terms(&question), (1, 100), "the end is not known yet");
    let records = SentBatch::simple(100, 10).encode();
    for (high_watermark, min_bytes) in [(111, 1), (110, 1 << 20)] {
        bench.seek(100, 1);
        let answer =
            FetchedPartition { partition: 0, error: 0, high_watermark, aborted: Vec::new(), records: &records };
        drop(bench.board.note(&bench.question(), vec![answer]));
        assert_eq!(terms(&bench.question()), (min_bytes, 100));
    }
    // With hardly any room left there may be less than the least to ask for, however much there is.
    let share = backpressure::partition_share(&bench.board.shared.limits, 1);
    bench.slot.sent(share - 300_000, bench.board.shared.now_ms());
    bench.seek(100, 2);
    assert_eq!(terms(&bench.question()), (1, 100));
    assert_eq!(bench.arrived(), (Vec::new(), None));
}

#[test]
fn partitions_with_enough_are_left_out() {
    let mut bench = Bench::new();
    let now_ms = bench.board.shared.now_ms();
    let share = backpressure::partition_share(&bench.board.shared.limits, 1);
    bench.slot.sent(share - 300_000, now_ms);
    let question = bench.question();
    assert!(question.partitions[0].max_bytes <= 100_000, "no more than there is room for");
    bench.slot.sent(400_000, now_ms);
    assert!(matches!(bench.board.next_task(BROKER), Task::Wait));
    bench.slot.taken(400_000, now_ms);
    bench.board.shared.status.set_holding_back(true);
    assert!(matches!(bench.board.next_task(BROKER), Task::Wait));
    bench.board.shared.status.set_holding_back(false);
    let others = bench.board.shared.budget.reserve(1 << 30);
    assert!(matches!(bench.board.next_task(BROKER), Task::Wait));
    drop(others);
    // An answer that expands far beyond what was expected is not taken in whole, and the rest comes later.
    bench.slot.taken(share - 300_000, now_ms);
    let mut records = Vec::new();
    for index in 0..40 {
        let large = vec![b'x'; 1 << 20];
        let mut batch = SentBatch { codec: 3, ..SentBatch::simple(100 + index, 1) };
        batch.records[0].value = Some(large);
        records.extend(batch.encode());
    }
    bench.answer(&bench.question(), 0, records.clone());
    let first = bench.arrived().0.len() as i64;
    assert!((8..20).contains(&first), "{first}");
    assert_eq!(bench.position(), 100 + first);
    bench.answer(&bench.question(), 0, records);
    assert_eq!(bench.arrived().0[0], (1, 100 + first));
    // A revoked partition is not fetched.
    bench.slot.revoke();
    assert!(bench.has_ended());
}
