use std::time::Duration;

use super::*;

const MINIMAL: &str = r#"
[kafka]
brokers = "one:9092, two:9092"
[registry]
url = "http://registry:8080/apis/ccompat/v7"
[archive]
url = "s3://archive"
[dead_letter]
url = "s3://dead-letters"
[state]
url = "file:///var/lib/kappa/state"
[hot_store]
url = "http://clickhouse:8123"
"#;

fn problems(sources: &Sources) -> Vec<Problem> {
    sources.load(Needs::Everything).unwrap_err().problems
}

/// The problem with a key, when `extra` is set on top of a good configuration.
fn problem_of(key: &str, value: &str) -> Problem {
    let found = problems(&Sources::of_text(MINIMAL).with_flag(key, value, format!("--set {key}={value}")));
    assert_eq!(found.len(), 1, "{found:#?}");
    found.into_iter().next().unwrap()
}

#[test]
fn defaults_fill_what_the_file_leaves_out() {
    let config = Config::from_toml(MINIMAL).unwrap();
    assert_eq!(config.kafka.brokers, ["one:9092", "two:9092"]);
    assert_eq!((config.kafka.topic.as_str(), config.kafka.group.as_str()), ("sensor-readings", "kappa"));
    assert_eq!(config.hot_store.database, "kappa");
    assert_eq!(config.windows.length, Duration::from_mins(1));
    assert_eq!(config.checkpoint.max_bytes, 64 << 20);
    assert_eq!(config.event.key, ["sensor_id", "metric"]);
    assert_eq!(config.object_store.endpoint, None);
    assert!(config.reader_schema().unwrap().contains("SensorReading"));
}

#[test]
fn flags_over_environment_over_file_over_defaults() {
    let loaded = Sources::of_text(format!("{MINIMAL}\n[kafka.properties]\nsecurity.protocol = \"SSL\"\n"))
        .with_variable("KAPPA__KAFKA__TOPIC", "from-environment")
        .with_variable("KAPPA__KAFKA__GROUP", "17")
        .with_variable("KAPPA__EVENT__KEY", "[\"site\"]")
        .with_variable("KAPPA__PIPELINE__WORKERS", "3")
        .with_variable("KAPPA__OBJECT_STORE__ALLOW_HTTP", "true")
        .with_variable("KAPPA__KAFKA__PROPERTIES__FETCH_WAIT_MAX_MS", "7")
        .with_flag("kafka.topic", "from-flag", "--topic from-flag")
        .with_flag("kafka.properties.client.id", "me", "--set kafka.properties.client.id=me")
        .with_flag("event.quality", "", "--set event.quality=")
        .load(Needs::Everything)
        .unwrap();
    let config = &loaded.config;
    assert_eq!(config.kafka.topic, "from-flag");
    assert_eq!(config.kafka.group, "17");
    assert_eq!(config.event.key, ["site"]);
    assert_eq!(config.event.quality, None);
    assert_eq!(config.pipeline.workers, 3);
    assert!(config.object_store.allow_http);
    let properties: Vec<_> =
        config.kafka.properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(properties, [("client.id", "me"), ("fetch.wait.max.ms", "7"), ("security.protocol", "SSL")]);

    let origin = |key: &str| loaded.origins[key].to_string();
    assert_eq!(origin("kafka.topic"), "flag --topic from-flag");
    assert_eq!(origin("kafka.group"), "environment variable KAPPA__KAFKA__GROUP");
    assert_eq!(origin("kafka.brokers"), "(text), line 3");
    assert_eq!(
        origin("kafka.properties.fetch.wait.max.ms"),
        "environment variable KAPPA__KAFKA__PROPERTIES__FETCH_WAIT_MAX_MS"
    );
    assert_eq!(origin("kafka.properties.security.protocol"), "(text), line 16");
    assert_eq!(origin("windows.length"), "default");
}

#[test]
fn everything_wrong_is_said_at_once() {
    let text = MINIMAL.replace("[state]\nurl = \"file:///var/lib/kappa/state\"", "")
        + "emit_interval = \"often\"\n[windows]\nlenght = \"1m\"\n[surprise]\na = 1\n[limits]\nmemory = \"10MiB\"\n";
    let sources = Sources::of_text(text).with_variable("KAPPA__PIPELINE__WORKERS", "many");
    let found = problems(&sources);
    let mut keys: Vec<_> = found.iter().map(|problem| problem.key.as_str()).collect();
    keys.sort_unstable();
    let expected =
        ["hot_store.emit_interval", "limits.memory", "pipeline.workers", "state.url", "surprise.a", "windows.lenght"];
    assert_eq!(keys, expected);
    let error = ConfigurationError { problems: found }.to_string();
    assert!(error.contains("did you mean windows.length?"), "{error}");
    assert!(error.contains("hot_store.emit_interval = \"often\""), "{error}");
    assert!(error.contains("allowed: a duration from 100ms on"), "{error}");
    assert!(error.contains("set by: environment variable KAPPA__PIPELINE__WORKERS"), "{error}");
    assert!(error.contains("set by: (text), line"), "{error}");
}

#[test]
fn wrong_values_are_refused() {
    let wrong = [
        ("kafka.brokers", "no-port"),
        ("kafka.topic", "a/b"),
        ("kafka.start", "yesterday"),
        ("registry.url", "registry:8080"),
        ("archive.url", "gs://bucket"),
        ("state.url", "s3://dead-letters/below"),
        ("object_store.endpoint", "http://s3:9000"),
        ("hot_store.database", "drop table"),
        ("hot_store.emit_interval", "10ms"),
        ("event.schema", "/no/such/file.avsc"),
        ("event.key", "count"),
        ("event.key", "a,a"),
        ("windows.length", "7s"),
        ("windows.length", "0s"),
        ("anomaly.detector", "psychic"),
        ("anomaly.threshold", "-1"),
        ("checkpoint.interval", "2h"),
        ("checkpoint.max_bytes", "900MiB"),
        ("limits.max_future_skew", "2d"),
        ("http.listen", "everywhere"),
        ("log.format", "xml"),
        ("log.level", "loud"),
        ("kafka.properties", "nonsense"),
        ("kafka", "nonsense"),
    ];
    for (key, value) in wrong {
        let found = problem_of(key, value);
        assert!(found.to_string().contains("set by: flag --set"), "{key}: {found}");
    }
}

#[test]
fn the_native_fetcher_is_refused_with_properties_that_it_cannot_follow() {
    for (name, value) in [("security.protocol", "SSL"), ("client.rack", "a"), ("broker.address.family", "v6")] {
        let sources =
            Sources::of_text(MINIMAL).with_flag(format!("kafka.properties.{name}"), value, format!("--set {name}"));
        assert!(sources.clone().with_flag("kafka.fetcher", "auto", "--set auto").load(Needs::Everything).is_ok());
        let found = problems(&sources.with_flag("kafka.fetcher", "native", "--set native"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].key, "kafka.fetcher");
        assert!(found[0].message.contains(name), "{}", found[0]);
    }
    let sources = Sources::of_text(MINIMAL).with_flag("kafka.fetcher", "native", "--set native");
    let harmless = sources.with_flag("kafka.properties.security.protocol", "plaintext", "--set");
    assert_eq!(harmless.load(Needs::Everything).unwrap().config.kafka.fetcher, FetcherChoice::Native);
}

#[test]
fn properties_that_the_guarantees_rest_on_are_refused() {
    for (name, value) in [
        ("enable.auto.commit", "true"),
        ("auto.offset.reset", "latest"),
        ("group.protocol", "consumer"),
        ("bootstrap.servers", "a:1"),
        ("sasl.password", "hunter2"),
        ("no.such.property", "1"),
        ("fetch.wait.max.ms", "soon"),
        ("sasl.password_file", "/no/such/file"),
    ] {
        let found = problem_of(&format!("kafka.properties.{name}"), value);
        assert_eq!(found.key, format!("kafka.properties.{name}"));
        assert!(!found.to_string().replace("--set", "").contains(" = \"hunter2\""), "{found}");
    }
}

#[test]
fn secrets_come_from_files_and_are_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let path = file.to_str().unwrap();
    let loaded = Sources::of_text(MINIMAL.replace("http://clickhouse:8123", "http://me:hunter2@clickhouse:8123"))
        .with_flag("registry.user", "reader", "--set")
        .with_flag("registry.password_file", path, "--set")
        .with_flag("kafka.properties.sasl.password_file", path, "--set")
        .load(Needs::Everything)
        .unwrap();
    let config = &loaded.config;
    assert_eq!(config.registry.password().unwrap().unwrap().expose(), "hunter2");
    assert_eq!(config.kafka.client_properties().unwrap()["sasl.password"], "hunter2");
    assert_eq!(config.hot_store.url.as_url().password(), Some("hunter2"));
    let mut shown = format!("{config:?} {:?}", config.registry.password().unwrap());
    shown += &print(&loaded, PrintFormat::Toml).unwrap();
    shown += &print(&loaded, PrintFormat::Json).unwrap();
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn what_is_printed_can_be_read_again() {
    let loaded = Sources::of_text(MINIMAL)
        .with_flag("kafka.properties.client.id", "me", "--set")
        .with_flag("checkpoint.max_bytes", "1500001", "--set")
        .load(Needs::Everything)
        .unwrap();
    let printed = print(&loaded, PrintFormat::Toml).unwrap();
    let again = Config::from_toml(&printed).unwrap();
    assert_eq!(format!("{:?}", loaded.config), format!("{again:?}"));
    assert!(printed.contains("topic = \"sensor-readings\" # default"), "{printed}");
    let json: serde_json::Value = serde_json::from_str(&print(&loaded, PrintFormat::Json).unwrap()).unwrap();
    assert_eq!(json["kafka.brokers"]["source"], "(text), line 3");
}

#[test]
fn every_key_is_printed_even_if_nothing_is_set() {
    let loaded = Sources::default().load(Needs::Nothing).unwrap();
    let printed = print(&loaded, PrintFormat::Toml).unwrap();
    assert!(printed.contains("# brokers = (needed)"), "{printed}");
    assert!(!printed.contains("unset"), "{printed}");
}

#[test]
fn a_command_asks_only_for_what_it_needs() {
    let sources = Sources::of_text("[hot_store]\nurl = \"http://clickhouse:8123\"");
    assert_eq!(sources.load(Needs::HotStore).unwrap().config.hot_store.database, "kappa");
    let missing: Vec<_> = problems(&sources).into_iter().map(|problem| problem.key).collect();
    assert_eq!(missing, ["kafka.brokers", "registry.url", "archive.url", "dead_letter.url", "state.url"]);
}

#[test]
fn a_broken_or_missing_file_is_named() {
    let found = problems(&Sources::of_text("[kafka\nbrokers = 1"));
    assert!(found[0].to_string().contains("line 1"), "{}", found[0]);
    let found = problems(&Sources::of_process(Some("/no/such/kappa.toml".into())));
    assert!(found[0].to_string().starts_with("/no/such/kappa.toml: cannot be read"), "{}", found[0]);
}
