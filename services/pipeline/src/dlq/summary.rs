//! Counts dead letters by what they have in common.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use chrono::DateTime;
use futures::TryStreamExt as _;
use serde::Serialize;

use super::bucket::Bucket;
use super::ledger::Ledger;
use super::selection::{Address, Selection};
use crate::dead_letters::DeadLetter;
use crate::verify::shown_time;

/// Groups beyond which the rest is counted together: keys and headers are the producers' to choose.
const MOST_GROUPS: usize = 10_000;
/// What such a group is called.
const OTHERS: &str = "(others)";
/// Characters of a sentence or header that are shown.
const SHOWN: usize = 200;

/// What dead letters are counted by.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Dimension {
    Reason,
    Schema,
    Partition,
    Hour,
    Day,
    Key,
    Attempt,
    Header(String),
}

/// Dead letters that have something in common.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// What they have in common, by the name of the dimension.
    pub by: BTreeMap<String, String>,
    /// How many.
    pub count: u64,
    /// How many of them were sent again.
    pub redriven: u64,
    /// Kafka timestamps of the oldest and the newest, RFC 3339.
    pub oldest: String,
    /// See `oldest`.
    pub newest: String,
    /// Some of them, the first ones first.
    pub samples: Vec<Sample>,
    #[serde(skip)]
    span_ms: (i64, i64),
}

/// One dead letter in short.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// What `kappa dlq show` takes.
    pub address: String,
    /// The sentence, cut short.
    pub detail: String,
    /// The key, cut short; bytes that are no text as `\xff`.
    pub key: Option<String>,
}

/// All groups, the largest first.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Topic.
    pub topic: String,
    /// Dead letters of the selection.
    pub count: u64,
    /// How many of them were sent again.
    pub redriven: u64,
    /// By the dimensions asked for.
    pub groups: Vec<Group>,
}

impl Dimension {
    /// How it is called.
    pub fn name(&self) -> String {
        match self {
            Self::Reason => "reason".to_owned(),
            Self::Schema => "schema".to_owned(),
            Self::Partition => "partition".to_owned(),
            Self::Hour => "hour".to_owned(),
            Self::Day => "day".to_owned(),
            Self::Key => "key".to_owned(),
            Self::Attempt => "attempt".to_owned(),
            Self::Header(name) => format!("header:{name}"),
        }
    }

    fn of(&self, letter: &DeadLetter) -> String {
        let time = |format: &str| {
            let time = DateTime::from_timestamp_millis(letter.timestamp_ms);
            time.map_or_else(|| letter.timestamp_ms.to_string(), |time| time.format(format).to_string())
        };
        let text = |bytes: Option<&[u8]>| bytes.map_or_else(|| "-".to_owned(), readable);
        match self {
            Self::Reason => letter.reason.clone(),
            Self::Schema => letter.schema_id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
            Self::Partition => letter.partition.to_string(),
            Self::Hour => time("%Y-%m-%dT%H"),
            Self::Day => time("%Y-%m-%d"),
            Self::Key => text(letter.key.as_deref()),
            Self::Attempt => letter.attempt.to_string(),
            Self::Header(name) => text(letter.header(name)),
        }
    }
}

impl FromStr for Dimension {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "reason" => Ok(Self::Reason),
            "schema" => Ok(Self::Schema),
            "partition" => Ok(Self::Partition),
            "hour" => Ok(Self::Hour),
            "day" => Ok(Self::Day),
            "key" => Ok(Self::Key),
            "attempt" => Ok(Self::Attempt),
            _ => match text.strip_prefix("header:").filter(|name| !name.is_empty()) {
                Some(name) => Ok(Self::Header(name.to_owned())),
                None => Err("expected reason, schema, partition, hour, day, key, attempt or header:NAME".to_owned()),
            },
        }
    }
}

/// Bytes as people can read them, cut short.
pub(super) fn readable(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.extend(chunk.valid().chars().flat_map(|letter| {
            let escaped: Box<dyn Iterator<Item = char>> =
                if letter.is_control() { Box::new(letter.escape_default()) } else { Box::new(std::iter::once(letter)) };
            escaped
        }));
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
        if out.len() > SHOWN {
            break;
        }
    }
    shortened(&out)
}

/// A sentence cut short.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Counts the dead letters of a selection.
pub async fn summarize(
    bucket: &Bucket,
    selection: &Selection,
    by: &[Dimension],
    samples: usize,
) -> anyhow::Result<Summary> {
    let sent = Ledger::read(bucket).await?.sent();
    let objects = bucket.objects(selection).await?;
    let mut groups: BTreeMap<Vec<String>, Group> = BTreeMap::new();
    let (mut count, mut redriven) = (0, 0);
    let mut batches = std::pin::pin!(bucket.letters(objects, selection));
    while let Some(batch) = batches.try_next().await? {
        for letter in batch.letters {
            let address = Address::of(&letter);
            let is_sent = sent.contains(address);
            count += 1;
            redriven += u64::from(is_sent);
            let mut values: Vec<String> = by.iter().map(|dimension| dimension.of(&letter)).collect();
            if groups.len() >= MOST_GROUPS && !groups.contains_key(&values) {
                values.fill(OTHERS.to_owned());
            }
            let group = groups.entry(values).or_insert_with_key(|values| Group {
                by: by.iter().map(Dimension::name).zip(values.iter().cloned()).collect(),
                count: 0,
                redriven: 0,
                oldest: String::new(),
                newest: String::new(),
                samples: Vec::new(),
                span_ms: (i64::MAX, i64::MIN),
            });
            group.count += 1;
            group.redriven += u64::from(is_sent);
            let (oldest, newest) = group.span_ms;
            group.span_ms = (oldest.min(letter.timestamp_ms), newest.max(letter.timestamp_ms));
            if group.samples.len() < samples {
                group.samples.push(Sample {
                    address: address.to_string(),
                    detail: shortened(&letter.detail),
                    key: letter.key.as_deref().map(readable),
                });
            }
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    for group in &mut groups {
        (group.oldest, group.newest) = (shown_time(group.span_ms.0), shown_time(group.span_ms.1));
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    Ok(Summary { topic: bucket.topic.clone(), count, redriven, groups })
}

#[cfg(test)]
mod tests {
    use super::super::selection::tests::letter;
    use super::*;

    #[test]
    fn dimensions_are_read_as_they_are_called() {
        for name in ["reason", "schema", "partition", "hour", "day", "key", "attempt", "header:team"] {
            assert_eq!(name.parse::<Dimension>().unwrap().name(), name);
        }
        assert!("header:".parse::<Dimension>().is_err() && "offset".parse::<Dimension>().is_err());
    }

    #[test]
    fn a_letter_has_a_value_in_each() {
        let letter = letter(3, 9, "tombstone");
        let of = |name: &str| name.parse::<Dimension>().unwrap().of(&letter);
        let values = ["reason", "schema", "partition", "hour", "header:team", "header:flag"].map(of);
        assert_eq!(values, ["tombstone", "7", "3", "1970-01-01T00", "plant", "-"]);
    }

    #[test]
    fn bytes_are_shown_readably_and_in_bounds() {
        assert_eq!(readable(b"a\n\xff\x00"), "a\\n\\xff\\u{0}");
        assert!(readable(&[0xfe; 10_000]).chars().count() <= SHOWN + 1);
    }
}
