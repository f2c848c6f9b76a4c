//! (D) Every reject of a segment is exactly once in its dead letters, for the footer's reason.

use std::sync::Arc;

use object_store::path::Path;

use super::Shared;
use super::chain::Segment;
use super::contents::check_hour;
use super::listing;
use super::report::Check;
use crate::archive::SegmentFooter;
use crate::dead_letters::{DeadLetter, letters_of};

/// Where the dead letters of a segment lie: under the same name as the segment.
pub(super) fn key_of(shared: &Shared, segment: &Segment) -> Option<Path> {
    let below = segment.object.key.prefix_match(&shared.stores.archive.prefix)?;
    let mut key = shared.stores.dead_letters.prefix.clone();
    for part in below {
        key = key.join(part);
    }
    Some(key)
}

/// The dead letters of a segment; `None` if there is no object. A sentence: it cannot be read.
pub(super) async fn read(
    shared: &Shared,
    segment: &Segment,
) -> anyhow::Result<Option<Result<Vec<DeadLetter>, String>>> {
    let Some(key) = key_of(shared, segment) else { return Ok(None) };
    let object = listing::read(&shared.stores.dead_letters, &key).await?;
    Ok(object.map(|object| letters_of(object)?.collect::<Result<Vec<_>, _>>().map(|batches| batches.concat())))
}

/// Holds the dead letters of a segment with rejects against its footer.
pub(super) async fn check(
    shared: &Arc<Shared>,
    segment: &Segment,
    footer: &SegmentFooter,
    committed: i64,
) -> anyhow::Result<()> {
    let partition = segment.object.partition;
    let name = key_of(shared, segment).unwrap_or_default();
    let differs = |sentence: String| {
        let sentence = format!("partition {partition}: dead letters {name}: {sentence}");
        shared.report.differs(Check::DeadLetters, Some(partition), segment.start, sentence);
    };
    let letters = match read(shared, segment).await? {
        Some(Ok(letters)) => letters,
        Some(Err(sentence)) => {
            differs(sentence);
            return Ok(());
        }
        None if shared.purged_before_hour.is_some_and(|hour| segment.object.hour < hour) => {
            shared.report.examined(Check::DeadLetters, "objects purged", 1);
            return Ok(());
        }
        None if segment.end > committed => {
            shared.report.examined(Check::DeadLetters, "objects not yet written", 1);
            return Ok(());
        }
        None => {
            differs(format!("the object is missing; the segment has {} rejects", segment.rejects));
            return Ok(());
        }
    };
    shared.report.examined(Check::DeadLetters, "objects", 1);
    shared.report.examined(Check::DeadLetters, "records", letters.len() as u64);
    compare(&shared.topic, segment, footer, &letters).into_iter().for_each(differs);
    Ok(())
}

/// What differs between a footer and the dead letters.
fn compare(topic: &str, segment: &Segment, footer: &SegmentFooter, letters: &[DeadLetter]) -> Vec<String> {
    let mut sentences = Vec::new();
    let (partition, mut last) = (segment.object.partition, None);
    let mut right = 0;
    for letter in letters {
        let offset = letter.offset;
        if (letter.topic.as_str(), letter.partition) != (topic, partition) {
            sentences.push(format!("offset {offset} says it is of {} [{}]", letter.topic, letter.partition));
        }
        if last.is_some_and(|last| last >= offset) {
            sentences.push(format!("offset {offset} is there twice, or out of order"));
            continue;
        }
        last = Some(offset);
        match footer.rejected.reason_of(offset) {
            None => sentences.push(format!("offset {offset} ({}) was not rejected", letter.reason)),
            Some(reason) if reason.name() != letter.reason => {
                sentences.push(format!("offset {offset} has the reason {}, the footer says {reason}", letter.reason));
                right += 1;
            }
            Some(_) => right += 1,
        }
    }
    let missing = segment.rejects.saturating_sub(right);
    if missing > 0 {
        sentences.push(format!("{missing} of {} rejects are not in it", segment.rejects));
    }
    if let Some(first) = letters.first().filter(|first| first.offset == segment.start) {
        sentences.extend(check_hour(segment, first.timestamp_ms).err());
    }
    sentences
}

#[cfg(test)]
mod tests {
    use kappa_core::partition::RejectedOffsets;

    use super::super::chain::tests::segment;
    use super::*;

    fn letter(offset: i64, reason: &str) -> DeadLetter {
        DeadLetter {
            topic: "t".to_owned(),
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: Vec::new(),
            schema_id: None,
            reason: reason.to_owned(),
            detail: String::new(),
            attempt: 0,
        }
    }

    #[test]
    fn each_reject_must_be_there_once_with_its_reason() {
        let json = r#"[[10,2,"tombstone"],[15,1,"bad_magic"]]"#;
        let footer = SegmentFooter {
            topic: "t".to_owned(),
            partition: 0,
            start: 10,
            end: 20,
            rows: 7,
            sequence: None,
            duplicates: Some(0),
            rejected: RejectedOffsets::from_json(json).unwrap(),
            digest: String::new(),
            reader_schema: String::new(),
            contract: None,
        };
        let segment = Segment { rejects: 3, ..segment(10, 20) };
        let of = |letters: &[(i64, &str)]| {
            let letters: Vec<_> = letters.iter().map(|(offset, reason)| letter(*offset, reason)).collect();
            compare("t", &segment, &footer, &letters)
        };
        assert!(of(&[(10, "tombstone"), (11, "tombstone"), (15, "bad_magic")]).is_empty());
        let cases: [(&[(i64, &str)], &str); 4] = [
            (&[(10, "tombstone"), (11, "tombstone"), (15, "tombstone")], "offset 15 has the reason tombstone"),
            (&[(10, "tombstone"), (11, "tombstone")], "1 of 3 rejects are not in it"),
            (&[(10, "tombstone"), (11, "tombstone"), (11, "tombstone"), (15, "bad_magic")], "offset 11 is there twice"),
            (&[(10, "tombstone"), (11, "tombstone"), (12, "x"), (15, "bad_magic")], "offset 12 (x) was not rejected"),
        ];
        for (letters, sentence) in cases {
            let found = of(letters);
            assert!(found.len() == 1 && found[0].contains(sentence), "{found:?}");
        }
    }
}
