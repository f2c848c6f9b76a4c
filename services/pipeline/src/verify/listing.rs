//! What lies in the three places, by key. Keys are parsed strictly: what does not come out the same again is a stray.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use chrono::NaiveDate;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt as _};

use super::report::{Check, Report};
use crate::archive::{snapshot_key, start_key};
use crate::storage::StoreRoot;

/// Date, hour, name.
const SEGMENT_PARTS: usize = 3;
/// Partition, name.
const STATE_PARTS: usize = 2;

/// An object of the archive or of the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedObject {
    pub(crate) key: Path,
    pub(crate) size: u64,
    pub(crate) partition: i32,
    pub(crate) start: i64,
    /// Of the key: hours since the epoch, UTC.
    pub(crate) hour: i64,
}

/// The state of a topic.
#[derive(Debug, Default)]
pub(super) struct ListedState {
    /// Positions of the snapshots, in order.
    pub(super) snapshots: BTreeMap<i32, Vec<i64>>,
    /// Where partitions began.
    pub(super) starts: BTreeMap<i32, i64>,
}

/// What lies below a topic in the archive or the dead letters.
#[derive(Debug, Default)]
pub(crate) struct ListedObjects {
    pub(crate) objects: Vec<ListedObject>,
    /// Keys that are none of the pipeline's.
    strays: Vec<Path>,
}

impl ListedObjects {
    /// Takes keys out that are no segments' and yet known.
    pub(crate) fn claim(&mut self, is_known: impl Fn(&Path) -> bool) {
        self.strays.retain(|key| !is_known(key));
    }

    /// Puts the strays into the report. `what` names the place.
    pub(super) fn tell(&self, what: &str, report: &Report) {
        report.examined(Check::Strays, "objects", (self.objects.len() + self.strays.len()) as u64);
        for key in &self.strays {
            report.differs(Check::Strays, None, 0, format!("{what}: {key} is not the key of a segment"));
        }
    }
}

/// The objects of a topic in the archive or the dead letters.
pub(crate) async fn list_segments(root: &StoreRoot, topic: &str) -> anyhow::Result<ListedObjects> {
    let prefix = root.prefix.clone().join(topic);
    let mut listed = ListedObjects::default();
    for (key, size) in list(root, &prefix, SEGMENT_PARTS).await? {
        match parse(&prefix, &key) {
            Some((partition, start, hour)) => listed.objects.push(ListedObject { key, size, partition, start, hour }),
            None => listed.strays.push(key),
        }
    }
    Ok(listed)
}

/// The snapshots of a topic and where its partitions began.
pub(super) async fn list_state(root: &StoreRoot, topic: &str, report: &Report) -> anyhow::Result<ListedState> {
    let prefix = root.prefix.clone().join(topic);
    let mut state = ListedState::default();
    for (key, _) in list(root, &prefix, STATE_PARTS).await? {
        report.examined(Check::Strays, "objects", 1);
        let Some((partition, name)) = parse_state(&prefix, &key) else {
            report.differs(Check::Strays, None, 0, format!("state: {key} is no snapshot"));
            continue;
        };
        let position = name.strip_suffix(".snapshot").and_then(|digits| digits.parse().ok());
        if let Some(position) = position.filter(|at| snapshot_key(&root.prefix, topic, partition, *at) == key) {
            state.snapshots.entry(partition).or_default().push(position);
        } else if key == start_key(&root.prefix, topic, partition) {
            let content = read(root, &key).await?.unwrap_or_default();
            let start = std::str::from_utf8(&content).ok().and_then(|text| text.parse().ok());
            match start {
                Some(start) => drop(state.starts.insert(partition, start)),
                None => report.differs(Check::Strays, Some(partition), 0, format!("state: {key} holds no offset")),
            }
        } else {
            report.differs(Check::Strays, Some(partition), 0, format!("state: {key} is no snapshot"));
        }
    }
    state.snapshots.values_mut().for_each(|positions| positions.sort_unstable());
    Ok(state)
}

/// All objects below a prefix, with their sizes; without the empty ones of fewer parts that some tools make of what they
/// take for directories.
pub(crate) async fn list(root: &StoreRoot, prefix: &Path, parts: usize) -> anyhow::Result<Vec<(Path, u64)>> {
    let is_directory =
        |key: &Path, size| size == 0 && key.prefix_match(prefix).is_some_and(|rest| rest.count() < parts);
    let listed = retried(
        prefix,
        || async {
            root.store.list(Some(prefix)).map_ok(|object| (object.location, object.size)).try_collect::<Vec<_>>().await
        },
        |error| !matches!(error, Error::NotFound { .. }),
    );
    match listed.await {
        Err(Error::NotFound { .. }) => Ok(Vec::new()),
        Ok(mut listed) => {
            listed.retain(|(key, size)| !is_directory(key, *size));
            Ok(listed)
        }
        Err(error) => Err(error).with_context(|| format!("cannot list {prefix}")),
    }
}

/// An object; `None` if there is none.
pub(crate) async fn read(root: &StoreRoot, key: &Path) -> anyhow::Result<Option<Bytes>> {
    let get = || async { root.store.get(key).await?.bytes().await };
    match retried(key, get, |error| !matches!(error, Error::NotFound { .. })).await {
        Ok(content) => Ok(Some(content)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {key}")),
    }
}

/// Some tries: a passing failure is no finding, and a lasting one ends the verification.
pub(crate) async fn retried<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(
    key: &Path,
    call: impl FnMut() -> F,
    is_passing: impl FnMut(&E) -> bool,
) -> Result<T, E> {
    let pauses = ExponentialBuilder::default().with_min_delay(Duration::from_millis(200)).with_max_times(5);
    let notify = |error: &E, _| tracing::debug!(%key, %error, "trying again");
    call.retry(pauses).when(is_passing).notify(notify).await
}

/// Partition, start and hour of `date=YYYY-MM-DD/hour=HH/PPPPP-OFFSET.parquet` below `prefix`.
fn parse(prefix: &Path, key: &Path) -> Option<(i32, i64, i64)> {
    let parts: Vec<String> = key.prefix_match(prefix)?.map(|part| part.as_ref().to_owned()).collect();
    let [date, hour, name] = parts.as_slice() else { return None };
    let date_text = date.strip_prefix("date=")?;
    let date = NaiveDate::parse_from_str(date_text, "%Y-%m-%d").ok()?;
    let hour_text = hour.strip_prefix("hour=")?;
    let hour: i64 = hour_text.parse().ok()?;
    let (partition, start) = name.strip_suffix(".parquet")?.split_once('-')?;
    let (partition, start): (i32, i64) = (partition.parse().ok()?, start.parse().ok()?);
    let again = format!("date={}/hour={hour:02}/{partition:05}-{start:020}.parquet", date.format("%Y-%m-%d"));
    let is_strict = again == parts.join("/") && (0..24).contains(&hour) && partition >= 0 && start >= 0;
    let days = date.signed_duration_since(NaiveDate::default()).num_days();
    is_strict.then_some((partition, start, days * 24 + hour))
}

/// Partition and name of an object of the state.
fn parse_state(prefix: &Path, key: &Path) -> Option<(i32, String)> {
    let parts: Vec<String> = key.prefix_match(prefix)?.map(|part| part.as_ref().to_owned()).collect();
    let [partition, name] = parts.as_slice() else { return None };
    Some((partition.parse().ok()?, name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::segment_key;

    #[test]
    fn only_keys_that_the_pipeline_writes_are_keys() {
        let prefix = Path::from("raw/t");
        let key = segment_key(&Path::from("raw"), "t", 7, 1_234, 1_790_000_000_000);
        assert_eq!(parse(&prefix, &key), Some((7, 1_234, 1_790_000_000_000 / 3_600_000)));
        for bad in [
            "raw/t/date=2026-09-21/hour=14/7-00000000000000001234.parquet",
            "raw/t/date=2026-09-21/hour=24/00007-00000000000000001234.parquet",
            "raw/t/date=2026-9-21/hour=14/00007-00000000000000001234.parquet",
            "raw/t/date=2026-09-21/00007-00000000000000001234.parquet",
            "raw/t/date=2026-09-21/hour=14/00007-00000000000000001234.parquet.tmp",
            "raw/t/date=2026-09-21/hour=14/x/00007-00000000000000001234.parquet",
        ] {
            assert_eq!(parse(&prefix, &Path::from(bad)), None, "{bad}");
        }
        let before_1970 = segment_key(&Path::from("raw"), "t", 0, 0, -1);
        assert_eq!(parse(&prefix, &before_1970), Some((0, 0, -1)));
    }
}
