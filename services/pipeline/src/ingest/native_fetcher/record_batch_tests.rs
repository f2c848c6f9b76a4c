use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::super::decompress::Decompressor;
use super::super::protocol::read_fetch;
use super::super::test_batches::{Sent, SentBatch, SentPartition, compress, crc32c, fetch_response};
use super::*;

const LIMIT: usize = 1 << 20;

/// Offset, timestamp, key, value, headers.
type Read = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn whole(bytes: &[u8]) -> RecordBatch<'_> {
    match RecordBatches::new(bytes).next().unwrap() {
        NextBatch::Whole(batch) => batch,
        other => panic!("{other:?}"),
    }
}

/// All records of all whole batches.
fn read_all(bytes: &[u8], decompressor: &mut Decompressor) -> Result<Vec<Read>, Unreadable> {
    let mut batches = RecordBatches::new(bytes);
    let mut found = Vec::new();
    while let NextBatch::Whole(batch) = batches.next()? {
        let mut records = batch.open(decompressor)?;
        while let Some(record) = records.next()? {
            let mut headers = Vec::new();
            record.headers(&mut headers)?;
            let headers = headers.iter().map(|(name, content)| (name.to_string(), content.map(<[u8]>::to_vec)));
            let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            found.push((record.offset, record.timestamp_ms, key, value, headers.collect()));
        }
    }
    Ok(found)
}

fn expected(batch: &SentBatch) -> impl Iterator<Item = Read> {
    batch.records.iter().map(|record| {
        let timestamp =
            if batch.append_time { batch.max_timestamp } else { batch.base_timestamp + record.timestamp_delta };
        let offset = batch.base_offset + i64::from(record.offset_delta);
        (offset, timestamp, record.key.clone(), record.value.clone(), record.headers.clone())
    })
}

fn any_record() -> impl Strategy<Value = Sent> {
    let bytes = || option::of(vec(any::<u8>(), 0..200));
    (-100_000_i64..1 << 40, bytes(), bytes(), vec(("[a-zä]{0,9}", bytes()), 0..3)).prop_map(
        |(timestamp_delta, key, value, headers)| Sent { offset_delta: 0, timestamp_delta, key, value, headers },
    )
}

prop_compose! {
    fn any_batch()(
        records in vec((any_record(), 1..3_i32), 1..40),
        codec in 0..6_u8,
        append_time in any::<bool>(),
        taken_at_end in 0..3_i32,
    ) -> SentBatch {
        // Offsets with gaps, as compaction leaves them.
        let mut next = 0;
        let records = records.into_iter().map(|(record, step)| {
            next += step;
            Sent { offset_delta: next - 1, ..record }
        });
        let mut batch = SentBatch { append_time, codec, ..SentBatch::new(0, records.collect()) };
        batch.last_offset_delta += taken_at_end;
        batch
    }
}

fn back_to_back(batches: &mut [SentBatch]) -> Vec<u8> {
    let (mut bytes, mut next) = (Vec::new(), 7);
    for batch in batches {
        batch.base_offset = next;
        next += i64::from(batch.last_offset_delta) + 1;
        bytes.extend(batch.encode());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn batches_come_back_as_they_were_sent(mut batches in vec(any_batch(), 1..4), cut in any::<prop::sample::Index>()) {
        let bytes = back_to_back(&mut batches);
        let mut decompressor = Decompressor::new(LIMIT);
        let wanted: Vec<Read> = batches.iter().flat_map(expected).collect();
        prop_assert_eq!(&read_all(&bytes, &mut decompressor).unwrap(), &wanted);
        // An answer that ends anywhere has the whole batches before.
        let cut = cut.index(bytes.len());
        let some = read_all(&bytes[..cut], &mut decompressor).unwrap();
        prop_assert!(wanted.starts_with(&some) && some.len() < wanted.len());
    }

    /// Whatever arrives: no panic, and no more memory than the limit allows.
    #[test]
    fn arbitrary_answers_are_refused_or_read(bytes in vec(any::<u8>(), 0..600)) {
        if let Ok(fetched) = read_fetch(&bytes, "") {
            for partition in fetched.partitions {
                let _ = read_all(partition.records, &mut Decompressor::new(LIMIT));
            }
        }
        let _ = read_all(&bytes, &mut Decompressor::new(LIMIT));
    }

    /// The same with answers that are nearly right: bytes are changed, and the checksum fits all the same.
    #[test]
    fn damaged_answers_are_refused_or_read(
        mut batch in any_batch(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_frame in any::<bool>(),
    ) {
        batch.codec %= 6;
        let mut records = batch.encode();
        if !in_frame {
            for (index, byte) in &changes {
                let index = index.index(records.len());
                records[index] = *byte;
            }
            let checksum = crc32c(&records[21..]);
            records[17..21].copy_from_slice(&checksum.to_be_bytes());
        }
        let partition = SentPartition { partition: 0, error: 0, aborted: vec![(1, 2)], records };
        let mut body = fetch_response("events", &[partition]);
        if in_frame {
            for (index, byte) in &changes {
                let index = index.index(body.len());
                body[index] = *byte;
            }
        }
        let mut decompressor = Decompressor::new(LIMIT);
        if let Ok(fetched) = read_fetch(&body, "events") {
            for partition in fetched.partitions {
                let _ = read_all(partition.records, &mut decompressor);
            }
        }
        prop_assert!(decompressor.memory() <= 2 * LIMIT + 64 * 1024, "{}", decompressor.memory());
    }
}

#[test]
fn a_changed_bit_is_noticed() {
    let bytes = SentBatch::simple(5, 10).encode();
    for at in 17..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        let error = read_all(&damaged, &mut Decompressor::new(LIMIT)).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{at}: {error}");
    }
}

#[test]
fn what_is_not_a_batch_of_today_is_named() {
    for (magic, words) in [(0, "kafka.fetcher = \"librdkafka\""), (1, "librdkafka"), (3, "unknown magic 3")] {
        let mut bytes = SentBatch::simple(5, 10).encode();
        bytes[16] = magic;
        let error = RecordBatches::new(&bytes).next().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let mut bytes = SentBatch::simple(5, 10).encode();
    bytes[8..12].copy_from_slice(&(-1_i32).to_be_bytes());
    assert!(RecordBatches::new(&bytes).next().is_err());
    bytes[8..12].copy_from_slice(&20_i32.to_be_bytes());
    assert!(RecordBatches::new(&bytes).next().is_err());
    let unknown = SentBatch { codec: 6, ..SentBatch::simple(5, 10) }.encode_around(&[0; 80]);
    assert!(matches!(read_all(&unknown, &mut Decompressor::new(LIMIT)), Err(Unreadable::UnknownCodec)));
}

#[test]
fn a_batch_that_expands_beyond_the_limit_is_refused() {
    let bomb = vec![0; 20 * LIMIT];
    for codec in 1..6 {
        let batch = SentBatch { codec, ..SentBatch::simple(5, 10) };
        let bytes = batch.encode_around(&compress(codec, &bomb));
        let mut decompressor = Decompressor::new(LIMIT);
        let error = read_all(&bytes, &mut decompressor).unwrap_err().to_string();
        assert!(error.contains("larger than 1048576 bytes"), "codec {codec}: {error}");
        assert!(decompressor.memory() <= 2 * LIMIT + 64 * 1024, "codec {codec}: {}", decompressor.memory());
        decompressor.shrink_to(1_000);
        assert!(decompressor.memory() <= 1_000);
    }
}

#[test]
fn a_batch_that_claims_too_many_records_is_refused() {
    let mut batch = SentBatch::simple(5, 10);
    let bytes = batch.encode();
    batch.records.extend((10..100).map(Sent::simple));
    let more = batch.encode_around(&bytes[61..]);
    assert!(read_all(&more, &mut Decompressor::new(LIMIT)).is_err());
    batch.records.truncate(9);
    let fewer = batch.encode_around(&bytes[61..]);
    assert!(read_all(&fewer, &mut Decompressor::new(LIMIT)).unwrap_err().to_string().contains("more bytes"));
}

#[test]
fn aborted_transactions_end_with_their_marker() {
    let batch = |base_offset, producer_id| {
        SentBatch { transactional: true, producer_id, ..SentBatch::simple(base_offset, 10) }.encode()
    };
    let marker = |base_offset, producer_id| {
        SentBatch { transactional: true, control: true, producer_id, ..SentBatch::simple(base_offset, 1) }.encode()
    };
    // Producer 1 aborts twice, with a committed transaction of its own in between; producer 2 commits; 3 is without one.
    let plain = SentBatch { producer_id: 3, ..SentBatch::simple(100, 10) }.encode();
    let log = [
        (batch(0, 1), true),
        (batch(10, 2), false),
        (batch(20, 1), true),
        (marker(30, 1), false),
        (batch(31, 1), false),
        (marker(41, 1), false),
        (batch(50, 1), true),
        (plain, false),
        (marker(110, 2), false),
    ];
    let mut aborted = AbortedTransactions::new(&[(1, 50), (1, 0)]);
    for (bytes, is_aborted) in &log {
        let batch = whole(bytes);
        let found = aborted.contains(&batch);
        if batch.is_control() {
            aborted.marker(&batch);
        } else {
            assert_eq!(found, *is_aborted, "at {}", batch.base_offset);
        }
    }
}

#[test]
fn positions_go_on_behind_what_compaction_took() {
    let batch = SentBatch { last_offset_delta: 99, ..SentBatch::simple(1_000, 3) }.encode();
    assert_eq!((whole(&batch).base_offset, whole(&batch).end_offset), (1_000, 1_100));
    let empty = SentBatch { last_offset_delta: 99, ..SentBatch::new(1_000, Vec::new()) }.encode();
    assert_eq!(whole(&empty).end_offset, 1_100);
    assert!(read_all(&empty, &mut Decompressor::new(LIMIT)).unwrap().is_empty());
    let impossible = SentBatch { last_offset_delta: i32::MAX, ..SentBatch::simple(i64::MAX - 5, 3) }.encode();
    assert!(RecordBatches::new(&impossible).next().is_err());
}
