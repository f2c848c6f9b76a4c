//! (A) The chain: which segments there are, by their keys and footers, and whether they follow one another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_schema::{DataType, TimeUnit};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStore;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::listing::{ListedObject, retried};
use super::report::{Check, Report};
use super::segment_rows::EventColumns;
use crate::archive::{FooterError, SegmentFooter, read_metadata};

/// Footers read at once.
const FOOTERS_AT_ONCE: usize = 32;

/// A segment, as its key and its footer describe it.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) object: ListedObject,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) rows: u64,
    pub(super) rejects: u64,
    pub(super) digest: String,
    /// Smallest and largest event time; `None` without rows.
    pub(super) times_ms: Option<(i64, i64)>,
}

/// The segments of a partition that follow one another, and where that ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    pub(super) segments: Vec<Segment>,
    /// How many of them follow one another from the first on, without a gap.
    pub(super) unbroken: usize,
    /// Whether the first one is not the partition's first.
    pub(super) head_is_missing: bool,
}

impl Chain {
    /// The log position at which the chain begins, and the one behind its unbroken part.
    pub(super) fn range(&self) -> Option<(i64, i64)> {
        let last = self.unbroken_segments().last()?;
        Some((self.segments.first()?.start, last.end))
    }

    pub(super) fn unbroken_segments(&self) -> &[Segment] {
        &self.segments[..self.unbroken]
    }

    pub(super) fn is_broken(&self) -> bool {
        self.unbroken < self.segments.len()
    }

    /// The log position behind the last segment, gaps or not.
    pub(super) fn end(&self) -> Option<i64> {
        self.segments.last().map(|segment| segment.end)
    }

    /// Whether a log position is where a segment ends or the first begins.
    pub(super) fn is_boundary(&self, position: i64) -> bool {
        let first = self.segments.first().map(|segment| segment.start);
        first == Some(position) || self.segments.binary_search_by_key(&position, |segment| segment.end).is_ok()
    }

    pub(super) fn segment_at(&self, start: i64) -> Option<&Segment> {
        let index = self.segments.binary_search_by_key(&start, |segment| segment.start).ok()?;
        Some(&self.segments[index])
    }
}

/// What reading the footers came to.
#[derive(Debug, Default)]
pub(super) struct Footers {
    by_partition: BTreeMap<i32, Vec<Segment>>,
    /// By partition, start and key: what is wrong with objects that count as no segment.
    broken: Vec<(i32, i64, String)>,
}

/// Reads all footers. `time`: the name of the event time's column.
///
/// # Errors
/// If the store does not answer.
pub(super) async fn read_footers(
    store: &Arc<dyn ObjectStore>,
    topic: &str,
    objects: Vec<ListedObject>,
    columns: &EventColumns,
) -> anyhow::Result<Footers> {
    let read = |object: ListedObject| async move {
        let metadata =
            retried(&object.key, || read_metadata(store, &object.key, object.size), FooterError::is_passing).await;
        let found = match metadata {
            Ok(metadata) => segment_of(object.clone(), topic, &metadata, columns),
            Err(error) if error.is_passing() => return Err(anyhow::Error::from(error)),
            Err(FooterError::Store(_)) => {
                Err("it was listed, but cannot be read: was it deleted meanwhile?".to_owned())
            }
            Err(error) => Err(error.to_string()),
        };
        Ok((object, found))
    };
    let mut found = futures::stream::iter(objects).map(read).buffer_unordered(FOOTERS_AT_ONCE);
    let mut footers = Footers::default();
    while let Some((object, segment)) = found.try_next().await? {
        match segment {
            Ok(segment) => footers.by_partition.entry(object.partition).or_default().push(segment),
            Err(sentence) => {
                let sentence = format!("partition {}: archive object {}: {sentence}", object.partition, object.key);
                footers.broken.push((object.partition, object.start, sentence));
            }
        }
    }
    Ok(footers)
}

fn segment_of(
    object: ListedObject,
    topic: &str,
    metadata: &ParquetMetaData,
    columns: &EventColumns,
) -> Result<Segment, String> {
    let footer = SegmentFooter::from_metadata(metadata).map_err(|error| error.to_string())?;
    let (by_key, by_footer) =
        ((topic, object.partition, object.start), (footer.topic.as_str(), footer.partition, footer.start));
    if by_key != by_footer {
        return Err(format!("its key says (topic, partition, start) {by_key:?}, its footer {by_footer:?}"));
    }
    if footer.end <= footer.start {
        return Err(format!("its footer says that it ends at {}, where it does not begin before", footer.end));
    }
    let (rows, rejects) = (footer.rows, footer.rejected.count());
    if metadata.file_metadata().num_rows() != rows as i64 {
        let held = metadata.file_metadata().num_rows();
        return Err(format!("it holds {held} rows, its footer says {rows}"));
    }
    if rows + rejects > (footer.end - footer.start) as u64 {
        let range = format!("[{}, {})", footer.start, footer.end);
        return Err(format!("{rows} rows and {rejects} rejects are more than the offsets in {range}"));
    }
    Ok(Segment {
        start: footer.start,
        end: footer.end,
        rows,
        rejects,
        digest: footer.digest,
        times_ms: event_times(metadata, columns)?,
        object,
    })
}

/// Smallest and largest event time, from the column's statistics.
fn event_times(metadata: &ParquetMetaData, columns: &EventColumns) -> Result<Option<(i64, i64)>, String> {
    let file = metadata.file_metadata();
    let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata());
    let schema = schema.map_err(|error| error.to_string())?;
    let time = columns.in_segment(&schema).time;
    let field = schema.field_with_name(&time).map_err(|_| format!("it has no column `{time}`"))?;
    let ticks = match field.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1_000_000,
        _ => 1,
    };
    let mut times = None;
    for row_group in metadata.row_groups().iter().filter(|row_group| row_group.num_rows() > 0) {
        let column = row_group.columns().iter().find(|column| column.column_path().parts() == [time.as_str()]);
        let statistics = column.and_then(|column| column.statistics());
        let Some(Statistics::Int64(statistics)) = statistics else {
            return Err(format!("its column `{time}` has no statistics"));
        };
        let (Some(min), Some(max)) = (statistics.min_opt(), statistics.max_opt()) else {
            return Err(format!("its column `{time}` has no smallest and largest value"));
        };
        let (min, max) = (min.div_euclid(ticks), max.div_euclid(ticks));
        let (smallest, largest) = times.unwrap_or((min, max));
        times = Some((min.min(smallest), max.max(largest)));
    }
    Ok(times)
}

impl Footers {
    /// Whether some chain has a gap: a second look at a running deployment may find it filled.
    pub(super) fn have_gaps(&self) -> bool {
        !self.broken.is_empty()
            || self.by_partition.values().any(|segments| !line_up(None, segments.clone()).gaps.is_empty())
    }

    /// The chains by partition. `starts`: where each partition begins, as far as that is known.
    pub(super) fn into_chains(
        mut self,
        starts: &BTreeMap<i32, i64>,
        partitions: &BTreeSet<i32>,
        archive_expires: bool,
        report: &Report,
    ) -> BTreeMap<i32, Chain> {
        for (partition, start, sentence) in &self.broken {
            report.differs(Check::Chain, Some(*partition), *start, sentence);
        }
        let mut chains = BTreeMap::new();
        for partition in partitions {
            let segments = self.by_partition.remove(partition).unwrap_or_default();
            let start = starts.get(partition).copied();
            let chain = tell(*partition, start, line_up(start, segments), archive_expires, report);
            chains.insert(*partition, chain);
        }
        chains
    }
}

/// Segments in order, and what is wrong with that order.
#[derive(Debug, Default)]
struct LinedUp {
    segments: Vec<Segment>,
    /// `(end of one segment, start of the next)`.
    gaps: Vec<(i64, i64)>,
    /// Segments that lie in the range of another one, whose start is given.
    surplus: Vec<(Segment, i64)>,
}

fn line_up(start: Option<i64>, mut segments: Vec<Segment>) -> LinedUp {
    segments.sort_by(|left, right| (left.start, &left.object.key).cmp(&(right.start, &right.object.key)));
    let starts: BTreeSet<i64> = segments.iter().map(|segment| segment.start).collect();
    let mut lined_up = LinedUp::default();
    let mut position = start.or_else(|| segments.first().map(|segment| segment.start)).unwrap_or_default();
    let mut rest = segments.into_iter().peekable();
    while let Some(segment) = rest.next() {
        let mut same_start = vec![segment];
        while let Some(other) = rest.next_if(|next| next.start == same_start[0].start) {
            same_start.push(other);
        }
        // Of several with one start, the one that another segment follows.
        let chosen = same_start.iter().position(|segment| starts.contains(&segment.end)).unwrap_or(0);
        let segment = same_start.swap_remove(chosen);
        let from = segment.start;
        lined_up.surplus.extend(same_start.into_iter().map(|surplus| (surplus, from)));
        if segment.start < position {
            let other = lined_up.segments.last().map_or(position, |other| other.start);
            lined_up.surplus.push((segment, other));
            continue;
        }
        if segment.start > position {
            lined_up.gaps.push((position, segment.start));
        }
        position = segment.end;
        lined_up.segments.push(segment);
    }
    lined_up
}

/// Puts into the report what is wrong with a chain.
fn tell(partition: i32, start: Option<i64>, lined_up: LinedUp, archive_expires: bool, report: &Report) -> Chain {
    let LinedUp { segments, gaps, surplus } = lined_up;
    let first = segments.first().map(|segment| segment.start);
    let mut head_is_missing = false;
    let mut unbroken = segments.len();
    for (from, to) in gaps {
        if first == Some(to) && archive_expires {
            head_is_missing = true;
            report.note(
                Check::Chain,
                format!(
                    "partition {partition}: the archive begins at {to}; older segments, from {from} on, have expired"
                ),
            );
            continue;
        }
        let mut sentence = format!(
            "partition {partition}: no segment begins at {from}; the next one begins at {to}: {} offsets are missing",
            to - from
        );
        if first == Some(to) {
            unbroken = 0;
            sentence.push_str(" (if a lifecycle rule removes old segments, say --archive-expires)");
        } else {
            unbroken = unbroken.min(segments.partition_point(|segment| segment.start < to));
        }
        report.differs(Check::Chain, Some(partition), from, sentence);
    }
    for (segment, other) in surplus {
        let sentence = format!(
            "partition {partition}: archive object {} lies inside the range of the segment that begins at {other}",
            segment.object.key
        );
        report.differs(Check::Strays, Some(partition), segment.start, sentence);
    }
    if start.is_none() && !segments.is_empty() {
        let first = first.unwrap_or_default();
        report.note(
            Check::Chain,
            format!("partition {partition}: no object says where it began; its oldest segment begins at {first}"),
        );
    }
    let empty: u64 =
        segments.iter().map(|segment| (segment.end - segment.start) as u64 - segment.rows - segment.rejects).sum();
    if empty > 0 {
        let note = format!(
            "partition {partition}: {empty} offsets are neither row nor reject: markers of transactions, or compacted away; \
             whether the log had records there, only the log can say"
        );
        report.note(Check::Chain, note);
    }
    report.examined(Check::Chain, "segments", segments.len() as u64);
    report.examined(Check::Chain, "rows", segments.iter().map(|segment| segment.rows).sum());
    report.examined(Check::Chain, "rejects", segments.iter().map(|segment| segment.rejects).sum());
    Chain { segments, unbroken, head_is_missing }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use object_store::path::Path;

    use super::*;

    pub(in crate::verify) fn segment(start: i64, end: i64) -> Segment {
        let key = Path::from(format!("t/date=2026-11-26/hour=10/00000-{start:020}.parquet"));
        Segment {
            object: ListedObject { key, size: 1, partition: 0, start, hour: 0 },
            start,
            end,
            rows: (end - start) as u64,
            rejects: 0,
            digest: String::new(),
            times_ms: Some((start, end)),
        }
    }

    fn chain_of(start: Option<i64>, segments: &[(i64, i64)], expires: bool) -> (Chain, Vec<String>) {
        let report = Report::default();
        let segments = segments.iter().map(|(start, end)| segment(*start, *end)).collect();
        let chain = tell(0, start, line_up(start, segments), expires, &report);
        let verification = report.finish(String::new(), 0, Duration::ZERO);
        let text = verification.to_string();
        let told = text.lines().filter_map(|line| line.trim().strip_prefix("- ").map(str::to_owned)).collect();
        (chain, told)
    }

    #[test]
    fn an_unbroken_chain_is_told_by_its_boundaries() {
        let (chain, told) = chain_of(Some(5), &[(30, 40), (5, 10), (10, 30)], false);
        assert!(told.is_empty(), "{told:?}");
        assert_eq!((chain.range(), chain.is_broken()), (Some((5, 40)), false));
        let boundaries: Vec<i64> = (0..50).filter(|position| chain.is_boundary(*position)).collect();
        assert_eq!(boundaries, [5, 10, 30, 40]);
    }

    #[test]
    fn a_gap_is_named_and_ends_what_is_unbroken() {
        let (chain, told) = chain_of(Some(0), &[(0, 10), (30, 40), (40, 50)], false);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("no segment begins at 10; the next one begins at 30: 20 offsets"), "{told:?}");
        assert_eq!((chain.range(), chain.end(), chain.is_broken()), (Some((0, 10)), Some(50), true));
    }

    #[test]
    fn a_missing_head_is_a_difference_unless_it_was_announced() {
        let (chain, told) = chain_of(Some(0), &[(10, 20)], false);
        assert!(told.len() == 1 && told[0].contains("--archive-expires"), "{told:?}");
        assert_eq!(chain.unbroken, 0);
        let (chain, told) = chain_of(Some(0), &[(10, 20)], true);
        assert!(told.is_empty(), "{told:?}");
        assert!(chain.head_is_missing && chain.unbroken == 1);
    }

    #[test]
    fn what_lies_inside_another_segment_is_surplus() {
        let (chain, told) = chain_of(Some(0), &[(0, 10), (4, 10), (10, 20)], false);
        assert!(told.len() == 1 && told[0].contains("inside the range of the segment that begins at 0"), "{told:?}");
        assert_eq!(chain.range(), Some((0, 20)));
        // Two with one start: the one that is followed by another stands.
        let (chain, told) = chain_of(Some(0), &[(0, 7), (0, 10), (10, 20)], false);
        assert_eq!((told.len(), chain.range()), (1, Some((0, 20))));
    }
}
