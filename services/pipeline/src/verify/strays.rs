//! (C, E) The committed offset against what is durable, and everything that no segment explains.

use std::collections::BTreeMap;

use kappa_core::snapshot::SnapshotReader;

use super::Shared;
use super::chain::Chain;
use super::kafka::LogFacts;
use super::listing::{ListedObject, ListedState};
use super::report::{Check, grouped};
use crate::archive::snapshot_key;
use crate::checkpoint::decompress;

/// Snapshots that a partition keeps: the last two.
const SNAPSHOTS_KEPT: usize = 2;

/// Committed offsets against chains and snapshots.
pub(super) async fn check_committed(
    shared: &Shared,
    chains: &BTreeMap<i32, Chain>,
    state: &ListedState,
    log: &LogFacts,
) -> anyhow::Result<()> {
    let report = &shared.report;
    for (partition, chain) in chains {
        let Some(committed) = log.committed.get(partition).copied() else {
            if !chain.segments.is_empty() {
                let note = format!(
                    "partition {partition}: the group has no committed offset; a start goes on from the newest snapshot"
                );
                report.note(Check::Committed, note);
            }
            continue;
        };
        report.examined(Check::Committed, "partitions", 1);
        let differs = |sentence: String| {
            let sentence = format!("partition {partition}: {committed} is committed, {sentence}");
            report.differs(Check::Committed, Some(*partition), committed, sentence);
        };
        let reach = chain.end().or_else(|| state.starts.get(partition).copied());
        match reach {
            Some(end) if committed > end => differs(format!("but the archive ends at {end}")),
            None if !state.snapshots.contains_key(partition) => {
                differs("but there is neither archive nor state".to_owned());
            }
            Some(_) if !chain.segments.is_empty() && !chain.is_boundary(committed) => {
                differs("where no segment ends".to_owned());
            }
            _ => {}
        }
        check_snapshot(shared, *partition, committed, differs).await?;
    }
    Ok(())
}

/// The snapshot at a committed offset must be there and be what it says.
async fn check_snapshot(
    shared: &Shared,
    partition: i32,
    committed: i64,
    differs: impl Fn(String),
) -> anyhow::Result<()> {
    let key = snapshot_key(&shared.stores.state.prefix, &shared.topic, partition, committed);
    let Some(content) = super::listing::read(&shared.stores.state, &key).await? else {
        // A pipeline that has moved on deletes older ones.
        if super::kafka::ask(&shared.kafka).await?.committed.get(&partition) == Some(&committed) {
            differs(format!("but there is no snapshot {key}"));
        }
        return Ok(());
    };
    shared.report.examined(Check::Committed, "snapshots", 1);
    let header = decompress(&content).map_err(|error| error.to_string()).and_then(|snapshot| {
        let header = |snapshot: &[u8]| {
            let mut reader = SnapshotReader::open(snapshot)?;
            let topic = reader.text()?.to_owned();
            reader.text()?;
            Ok::<_, kappa_core::snapshot::SnapshotError>((topic, reader.u32()? as i32, reader.i64()?))
        };
        header(&snapshot).map_err(|error| error.to_string())
    });
    let wanted = (shared.topic.clone(), partition, committed);
    match header {
        Err(error) => differs(format!("but its snapshot {key} cannot be used: {error}")),
        Ok(found) if found != wanted => differs(format!("but its snapshot {key} is of {found:?}")),
        Ok(_) => {}
    }
    Ok(())
}

/// Snapshots and dead letters that no segment explains. Both were listed before the archive, so whatever they belong to
/// was there when that was listed.
pub(super) fn check_objects(
    shared: &Shared,
    chains: &BTreeMap<i32, Chain>,
    state: &ListedState,
    dead_letters: &[ListedObject],
) {
    let report = &shared.report;
    for object in dead_letters.iter().filter(|object| shared.selects(object.partition)) {
        let segment = chains.get(&object.partition).and_then(|chain| chain.segment_at(object.start));
        let why = match segment {
            Some(segment) if segment.rejects == 0 => "the segment has no rejects",
            Some(segment)
                if segment.object.key.filename() != object.key.filename() || segment.object.hour != object.hour =>
            {
                "the segment lies under another hour"
            }
            Some(_) => continue,
            // Older than what is left of the archive.
            None if is_before_head(chains.get(&object.partition), object.start) => continue,
            None => "there is no such segment",
        };
        let sentence = format!("partition {}: dead letters {}: {why}", object.partition, object.key);
        report.differs(Check::Strays, Some(object.partition), object.start, sentence);
    }
    for (partition, positions) in state.snapshots.iter().filter(|(partition, _)| shared.selects(**partition)) {
        report.examined(Check::Strays, "snapshots", positions.len() as u64);
        for position in positions {
            let chain = chains.get(partition);
            let is_start = state.starts.get(partition) == Some(position);
            if is_start || chain.is_some_and(|chain| chain.is_boundary(*position)) || is_before_head(chain, *position) {
                continue;
            }
            let sentence = format!("partition {partition}: there is a snapshot at {position}, where no segment ends");
            report.differs(Check::Strays, Some(*partition), *position, sentence);
        }
        if positions.len() > SNAPSHOTS_KEPT {
            let note = format!("partition {partition}: {} snapshots are left, at {positions:?}", positions.len());
            report.note(Check::Strays, note);
        }
    }
}

fn is_before_head(chain: Option<&Chain>, position: i64) -> bool {
    let chain = chain.filter(|chain| chain.head_is_missing);
    chain.and_then(Chain::range).is_some_and(|(start, _)| position < start)
}

/// Rows of partitions that the topic does not have, of other topics, and of log positions that do not exist.
pub(super) async fn check_tables(shared: &Shared, log: &LogFacts) -> anyhow::Result<()> {
    let report = &shared.report;
    for ((topic, partition), count) in shared.hot.owners().await? {
        report.examined(Check::Strays, "partitions with rows", 1);
        let count = grouped(count);
        if topic != shared.topic {
            let note =
                format!("{count} rows of the topic {topic} [{partition}] are in the tables; the view merges them");
            report.note(Check::Strays, note);
        } else if !log.bounds.contains_key(&partition) {
            let sentence =
                format!("partition {partition}: {count} rows are in the tables; the topic has no such partition");
            report.differs(Check::Strays, Some(partition), 0, sentence);
        }
    }
    let newest = shared.hot.newest_versions().await?;
    // Asked again, so that the log is ahead of the rows.
    let log = super::kafka::ask(&shared.kafka).await?;
    for (partition, version) in newest {
        if let Some((_, high)) = log.bounds.get(&partition)
            && version > *high as u64
            && shared.selects(partition)
        {
            let sentence = format!("partition {partition}: a row is true up to {version}, but the log ends at {high}");
            report.differs(Check::Strays, Some(partition), i64::MAX, sentence);
        }
    }
    Ok(())
}
