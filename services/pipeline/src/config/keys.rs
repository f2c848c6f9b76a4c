//! Every key in one table: what it is for, what it allows, how its text form is read.

/// How the text of a flag or an environment variable becomes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// As it stands: texts, durations, sizes, numbers, yes or no.
    Text,
    /// `a,b` or `["a", "b"]`.
    List,
    /// `{a = "b"}`; entries can also be named one by one.
    Map,
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// Section and name, with a dot.
    pub name: &'static str,
    pub shape: Shape,
    /// Whether it has no default.
    pub required: bool,
    /// What it is for.
    pub summary: &'static str,
    /// What is allowed.
    pub allowed: &'static str,
}

const fn key(name: &'static str, summary: &'static str, allowed: &'static str) -> Key {
    Key { name, shape: Shape::Text, required: false, summary, allowed }
}

const fn required(name: &'static str, summary: &'static str, allowed: &'static str) -> Key {
    Key { required: true, ..key(name, summary, allowed) }
}

const DURATION: &str = "a duration such as 500ms, 30s, 5m, 2h or 30d";
const SIZE: &str = "a size such as 512KiB, 64MiB or 2GiB, or a number of bytes";
const NAME: &str = "a name";
const STORE: &str = "s3://bucket/prefix or file:///absolute/path";
const SERVICE: &str = "http://host:port/path or https://host:port/path";
const SECRET_FILE: &str = "the path of a readable file that holds the password and nothing else";
const FIELD: &str = "the name of a field of the reader schema";

/// All keys, in the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    Key {
        shape: Shape::List,
        ..required("kafka.brokers", "some brokers of the cluster", "host:port, more than one separated by commas")
    },
    key("kafka.topic", "the topic to read", NAME),
    key("kafka.group", "the consumer group whose offsets say what is done", NAME),
    key(
        "kafka.start",
        "where a group without offsets starts",
        "earliest, latest, or a time such as 2026-11-24T00:00:00Z",
    ),
    key(
        "kafka.fetcher",
        "who fetches the records; auto: the native fetcher where it can",
        "auto, native or librdkafka",
    ),
    Key {
        shape: Shape::Map,
        ..key(
            "kafka.properties",
            "any librdkafka property; a secret as <property>_file",
            "names and values of librdkafka properties, such as \"security.protocol\" = \"SASL_SSL\"",
        )
    },
    required("registry.url", "root of the Confluent-compatible API of the schema registry", SERVICE),
    key("registry.user", "user for basic authentication", NAME),
    key("registry.password_file", "file with that user's password", SECRET_FILE),
    key("registry.unknown_id_retry", "how long an id is asked for again that the registry does not know", DURATION),
    required("archive.url", "where the Parquet segments go", STORE),
    required("dead_letter.url", "where refused records go", STORE),
    required("state.url", "where state snapshots go", STORE),
    key("object_store.endpoint", "address of an S3-compatible service; none means AWS", SERVICE),
    key("object_store.region", "region of the buckets", "the name of a region, such as eu-central-1"),
    key("object_store.allow_http", "whether an endpoint without TLS is accepted", "true or false"),
    required("hot_store.url", "ClickHouse's HTTP interface", SERVICE),
    key("hot_store.database", "database of the tables", "letters, digits and underscores, not starting with a digit"),
    key("hot_store.user", "user that inserts", NAME),
    key("hot_store.password_file", "file with that user's password", SECRET_FILE),
    key(
        "hot_store.emit_interval",
        "how often at most the row of an open window is written",
        "a duration from 100ms on",
    ),
    key("event.schema", "file with the reader's Avro schema; none means the built-in one", "the path of an .avsc file"),
    Key { shape: Shape::List, ..key("event.key", "the fields that name a series", "one or more names of fields") },
    key("event.time", "the field with the event time", FIELD),
    key("event.value", "the field with the measured value", FIELD),
    key("event.quality", "the field with the sensor's own judgement", "the name of a field, or empty for none"),
    key("event.bad_quality", "the judgement that means \"do not trust this value\"", "a value of that field"),
    key("event.site", "the field that says where a sensor stands", "the name of a field, or empty for none"),
    key(
        "event.sequence",
        "the field that numbers the readings of a sensor, the first field of event.key: what comes twice is left out",
        "the name of a field, or empty for none",
    ),
    key(
        "contract.file",
        "file with the data contract; none set: the built-in one, but not for a schema of event.schema",
        "the path of a contract of the Open Data Contract Standard, or none",
    ),
    key("windows.length", "length of a window", "a duration of whole milliseconds that divides a day evenly"),
    key("windows.allowed_lateness", "how far the watermark is past a window when it closes", DURATION),
    key("anomaly.detector", "which detector looks at each event", "robust or none"),
    key("anomaly.warm_up", "events of a series before the first may be flagged", "a number from 1 on"),
    key("anomaly.refractory", "events of a series after a flag before the next", "a number from 0 on"),
    key(
        "anomaly.threshold",
        "an event is flagged if its probability is below ten to the minus this",
        "a number above 0 and up to 300",
    ),
    key("anomaly.flatline_after", "equal values in a row that make a flat line", "a number; 0 turns it off"),
    key("checkpoint.interval", "longest time that a segment stays open", "a duration from 1s to 1h"),
    key("checkpoint.max_bytes", "encoded size at which a segment is cut", SIZE),
    key("limits.memory", "memory for everything that grows with the load", "a size from 128MiB on"),
    key("limits.max_event_age", "how much older than its Kafka timestamp an event may be", "a duration up to 90d"),
    key("limits.max_future_skew", "how far ahead of its Kafka timestamp an event may be", DURATION),
    key("limits.max_record_bytes", "largest record, and largest that it may expand to", "a size from 1KiB to 64MiB"),
    key("limits.max_depth", "deepest nesting of a record", "a number from 1 to 256"),
    key("pipeline.workers", "threads that decode and count", "a number from 1 to 256"),
    key("pipeline.shutdown_timeout", "how long a graceful stop may take", DURATION),
    key("http.listen", "where metrics, health and status are served", "address:port; port 0 takes a free one"),
    key("http.ready_max_lag", "how far behind a partition may be while /readyz says yes", DURATION),
    key("log.format", "form of the log lines on standard error; --log-format goes before it", "pretty or json"),
    key("log.level", "how much is logged; --log-level and RUST_LOG go before it", "error, warn, info, debug or trace"),
];

/// The key of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key that a path belongs to: itself, or the list or map that it is an entry of.
pub(super) fn owner(path: &[String]) -> Option<&'static Key> {
    (1..=path.len()).rev().find_map(|length| find(&path[..length].join(".")))
}

/// The known key that an unknown one most likely means.
pub(super) fn nearest(unknown: &str) -> Option<&'static str> {
    let last = unknown.rsplit('.').next().unwrap_or(unknown);
    let distance = |key: &Key| {
        let whole = edit_distance(unknown, key.name);
        // The right name in the wrong section is nearer than its letters say.
        let (_, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if name == last { whole.min(2) } else { whole }
    };
    let (best, distance) = KEYS.iter().map(|key| (key.name, distance(key))).min_by_key(|(_, distance)| *distance)?;
    (distance <= 2.max(unknown.chars().count() / 4)).then_some(best)
}

/// The name that somebody who wrote `unknown` most likely meant.
pub(crate) fn nearest_of<'n>(unknown: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let unknown = unknown.to_lowercase();
    // One that was cut short, or drawn out, is near whatever its letters say.
    let is_part = |name: &str| {
        let shorter = unknown.len().min(name.len());
        shorter >= 3 && (unknown.starts_with(name) || name.starts_with(&*unknown))
    };
    let distance_of = |name: &str| if is_part(name) { 1 } else { edit_distance(&unknown, name) };
    let by_distance = names.map(|name| (distance_of(&name.to_lowercase()), name));
    let (distance, nearest) = by_distance.min_by_key(|(distance, _)| *distance)?;
    (distance <= 2.min(unknown.chars().count() / 2).max(unknown.chars().count() / 4)).then_some(nearest)
}

/// Damerau's distance: how many letters must be put in, taken away or changed, or exchanged with the next.
fn edit_distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut before = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for line in 0..left.len() {
        let mut row = vec![line + 1];
        for column in 0..right.len() {
            let changed = above[column] + usize::from(left[line] != right[column]);
            let mut distance = changed.min(above[column + 1] + 1).min(row[column] + 1);
            if line > 0 && column > 0 && left[line] == right[column - 1] && left[line - 1] == right[column] {
                distance = distance.min(before[column - 1] + 1);
            }
            row.push(distance);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_exactly_the_keys_of_the_configuration() {
        let template = serde_json::to_value(super::super::Config::template()).unwrap();
        let mut fields = Vec::new();
        for (section, content) in template.as_object().unwrap() {
            fields.extend(content.as_object().unwrap().keys().map(|name| format!("{section}.{name}")));
        }
        let names: Vec<_> = KEYS.iter().map(|key| key.name.to_owned()).collect();
        assert_eq!(names, fields);
    }

    #[test]
    fn the_nearest_key() {
        assert_eq!(nearest("kafka.brkers"), Some("kafka.brokers"));
        assert_eq!(nearest("kafka.broker"), Some("kafka.brokers"));
        assert_eq!(nearest("kafak.topic"), Some("kafka.topic"));
        assert_eq!(nearest("kafka.emit_interval"), Some("hot_store.emit_interval"));
        assert_eq!(nearest("telemetry.sampling"), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("unit", "uint"), 1);
        let bounds = || ["min", "max", "unit"].into_iter();
        assert_eq!(
            ["mni", "Maximum", "uint", "lowest", "x"].map(|name| nearest_of(name, bounds())),
            [Some("min"), Some("max"), Some("unit"), None, None]
        );
    }
}
