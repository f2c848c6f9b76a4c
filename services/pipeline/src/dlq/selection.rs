//! Which dead letters are meant.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use crate::dead_letters::DeadLetter;
use crate::verify::listing::ListedObject;

const HOUR_MS: i64 = 3_600_000;

/// All conditions must hold; one that is empty always does.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// One of these reasons; `contract_*` stands for all that begin so.
    pub reasons: Vec<String>,
    /// One of these schema ids.
    pub schema_ids: BTreeSet<i32>,
    /// One of these partitions.
    pub partitions: BTreeSet<i32>,
    /// One of these records.
    pub addresses: BTreeSet<Address>,
    /// Kafka timestamp at or after this.
    pub from: Option<DateTime<Utc>>,
    /// Kafka timestamp before this.
    pub to: Option<DateTime<Utc>>,
    /// This key, as text.
    pub key: Option<String>,
    /// All of these headers.
    pub headers: Vec<HeaderFilter>,
}

/// A record of the log: partition and offset, written `3/1234`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the two words say it")]
pub struct Address {
    pub partition: i32,
    pub offset: i64,
}

/// A header that must be there, with that content if one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderFilter {
    name: String,
    content: Option<String>,
}

impl Selection {
    /// The records of these addresses alone.
    pub fn of(addresses: impl IntoIterator<Item = Address>) -> Self {
        Self { addresses: addresses.into_iter().collect(), ..Self::default() }
    }

    /// Whether an object may hold any of them. Its hour is that of the segment's first record; none of its records is of
    /// a later one, earlier ones may be.
    pub(super) fn needs(&self, object: &ListedObject) -> bool {
        let partition = object.partition;
        let begins_before = |address: &Address| address.partition == partition && object.start <= address.offset;
        (self.partitions.is_empty() || self.partitions.contains(&partition))
            && (self.addresses.is_empty() || self.addresses.iter().any(begins_before))
            && self.from.is_none_or(|from| (object.hour + 1).saturating_mul(HOUR_MS) > from.timestamp_millis())
    }

    /// Whether a dead letter is meant.
    pub(super) fn includes(&self, letter: &DeadLetter) -> bool {
        let address = Address { partition: letter.partition, offset: letter.offset };
        let timestamp = letter.timestamp_ms;
        (self.reasons.is_empty() || self.reasons.iter().any(|wanted| matches_reason(wanted, &letter.reason)))
            && (self.schema_ids.is_empty() || letter.schema_id.is_some_and(|id| self.schema_ids.contains(&id)))
            && (self.partitions.is_empty() || self.partitions.contains(&letter.partition))
            && (self.addresses.is_empty() || self.addresses.contains(&address))
            && self.from.is_none_or(|from| timestamp >= from.timestamp_millis())
            && self.to.is_none_or(|to| timestamp < to.timestamp_millis())
            && self.key.as_ref().is_none_or(|key| letter.key.as_deref() == Some(key.as_bytes()))
            && self.headers.iter().all(|header| header.holds(letter))
    }
}

fn matches_reason(wanted: &str, reason: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(beginning) => reason.starts_with(beginning),
        None => wanted == reason,
    }
}

impl Address {
    /// Of a dead letter.
    pub fn of(letter: &DeadLetter) -> Self {
        Self { partition: letter.partition, offset: letter.offset }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.partition, self.offset)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('/').and_then(|(partition, offset)| {
            let (partition, offset): (i32, i64) = (partition.parse().ok()?, offset.parse().ok()?);
            (partition >= 0 && offset >= 0).then_some(Self { partition, offset })
        });
        numbers.ok_or_else(|| format!("{text:?} is no PARTITION/OFFSET such as 3/1234"))
    }
}

impl FromStr for HeaderFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, content) = text.split_once('=').map_or((text, None), |(name, content)| (name, Some(content)));
        if name.is_empty() {
            return Err("expected NAME or NAME=CONTENT".to_owned());
        }
        Ok(Self { name: name.to_owned(), content: content.map(ToOwned::to_owned) })
    }
}

impl HeaderFilter {
    fn holds(&self, letter: &DeadLetter) -> bool {
        match &self.content {
            None => letter.headers.iter().any(|(name, _)| *name == self.name),
            Some(content) => letter.header(&self.name) == Some(content.as_bytes()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use object_store::path::Path;

    use super::*;

    pub(in crate::dlq) fn letter(partition: i32, offset: i64, reason: &str) -> DeadLetter {
        DeadLetter {
            topic: "t".to_owned(),
            partition,
            offset,
            timestamp_ms: 1_000,
            key: Some(b"sensor-1".to_vec()),
            value: Some(vec![0, 0, 0, 0, 7, 1]),
            headers: vec![("team".to_owned(), Some(b"plant".to_vec())), ("flag".to_owned(), None)],
            schema_id: Some(7),
            reason: reason.to_owned(),
            detail: "a sentence".to_owned(),
            attempt: 0,
        }
    }

    #[test]
    fn every_condition_must_hold() {
        let letter = letter(3, 1234, "contract_key_missing");
        let time = |ms| DateTime::from_timestamp_millis(ms);
        let all = Selection {
            reasons: vec!["tombstone".to_owned(), "contract_*".to_owned()],
            schema_ids: [7].into(),
            partitions: [3].into(),
            addresses: ["3/1234".parse().unwrap()].into(),
            from: time(1_000),
            to: time(1_001),
            key: Some("sensor-1".to_owned()),
            headers: vec!["team=plant".parse().unwrap(), "flag".parse().unwrap()],
        };
        assert!(all.includes(&letter) && Selection::default().includes(&letter));
        let wrong: [fn(&mut Selection); 8] = [
            |selection| selection.reasons = vec!["contract".to_owned()],
            |selection| selection.schema_ids = [8].into(),
            |selection| selection.partitions = [2].into(),
            |selection| selection.addresses = ["3/1235".parse().unwrap()].into(),
            |selection| selection.from = DateTime::from_timestamp_millis(1_001),
            |selection| selection.to = DateTime::from_timestamp_millis(1_000),
            |selection| selection.key = Some("sensor".to_owned()),
            |selection| selection.headers = vec!["team=other".parse().unwrap()],
        ];
        for (number, change) in wrong.into_iter().enumerate() {
            let mut selection = all.clone();
            change(&mut selection);
            assert!(!selection.includes(&letter), "condition {number}");
        }
    }

    #[test]
    fn objects_that_cannot_hold_any_are_not_read() {
        let object = ListedObject { key: Path::default(), size: 1, partition: 3, start: 100, hour: 10 };
        let of = |text: &str| Selection::of([text.parse().unwrap()]).needs(&object);
        assert!(of("3/100") && of("3/5000") && !of("3/99") && !of("2/100"));
        let since = |hour: i64| Selection { from: DateTime::from_timestamp(hour * 3600, 0), ..Selection::default() };
        assert!(since(10).needs(&object) && !since(11).needs(&object));
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let address: Address = "3/1234".parse().unwrap();
        assert_eq!(address.to_string(), "3/1234");
        for bad in ["", "3", "3/", "-1/4", "3/x", "3/1/2"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
