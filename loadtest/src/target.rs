//! The system under test, as the pipeline's own configuration describes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use figment::Figment;
use figment::providers::{Env, Format as _, Toml};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, ObjectStore};
use rdkafka::ClientConfig;
use serde::Deserialize;
use url::Url;

/// Properties that a producer needs as well as the pipeline's consumer: how to connect.
const CONNECTION_PROPERTIES: [&str; 5] = ["security.", "sasl.", "ssl.", "enable.ssl.", "client.dns."];

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Target {
    /// Kafka.
    pub kafka: Kafka,
    /// The schema registry.
    pub registry: Url,
    /// Parquet segments, in the topic's directory.
    pub archive: Place,
    /// Dead letters, in the topic's directory.
    pub dead_letters: Place,
    /// State snapshots, in the topic's directory.
    pub state: Place,
    /// ClickHouse.
    pub hot_store: HotStore,
    /// `/status` and `/metrics` of each process of the pipeline.
    pub pipelines: Vec<Url>,
    /// Processes to watch, with their names. Those of one name are added up.
    pub processes: Vec<(String, u32)>,
}

/// The log.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// The topic that the pipeline reads.
    pub topic: String,
    /// Other properties of a client.
    pub properties: BTreeMap<String, String>,
}

/// A place for objects.
#[derive(Debug, Clone)]
pub struct Place {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// What keys start with.
    pub prefix: ObjectPath,
}

/// ClickHouse.
#[derive(Debug, Clone)]
pub struct HotStore {
    /// Its HTTP interface.
    pub url: Url,
    /// The database.
    pub database: String,
    /// The user.
    pub user: String,
    /// The password, if there is one.
    pub password: Option<String>,
}

#[derive(Deserialize)]
struct File {
    kafka: KafkaSection,
    registry: UrlSection,
    archive: UrlSection,
    dead_letter: UrlSection,
    state: UrlSection,
    #[serde(default)]
    object_store: ObjectStoreSection,
    hot_store: HotStoreSection,
    #[serde(default)]
    event: EventSection,
    #[serde(default)]
    http: HttpSection,
}

#[derive(Deserialize)]
struct KafkaSection {
    brokers: Brokers,
    #[serde(default = "default_topic")]
    topic: String,
    #[serde(default)]
    properties: BTreeMap<String, figment::value::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Brokers {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct UrlSection {
    url: Url,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ObjectStoreSection {
    endpoint: Option<String>,
    region: Option<String>,
    allow_http: bool,
}

#[derive(Deserialize)]
struct HotStoreSection {
    url: Url,
    #[serde(default = "default_database")]
    database: String,
    #[serde(default = "default_user")]
    user: String,
    password_file: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
struct EventSection {
    schema: Option<String>,
}

#[derive(Deserialize, Default)]
struct HttpSection {
    listen: Option<String>,
}

fn default_topic() -> String {
    "sensor-readings".to_owned()
}

fn default_database() -> String {
    "kappa".to_owned()
}

fn default_user() -> String {
    "default".to_owned()
}

impl Target {
    /// Reads the pipeline's configuration file. `credentials` are `AWS_` variables that win over the environment's;
    /// without `pipelines` the address is the one that the file tells the pipeline to listen on.
    pub fn from_file(
        path: &Path,
        credentials: &BTreeMap<String, String>,
        pipelines: Vec<Url>,
        processes: Vec<(String, u32)>,
    ) -> anyhow::Result<Self> {
        if !path.is_file() {
            bail!("{} is not there: name the configuration file of the pipeline under test", path.display());
        }
        let figment = Figment::from(Toml::file_exact(path)).merge(Env::prefixed("KAPPA__").split("__"));
        let file: File =
            figment.extract().with_context(|| format!("{} is not the configuration of a pipeline", path.display()))?;
        if let Some(schema) = &file.event.schema {
            bail!(
                "event.schema = {schema:?}: the harness sends schemas/sensor-reading.avsc only; point it at a pipeline without a schema of its own"
            );
        }
        let topic = file.kafka.topic.clone();
        let place = |section: &UrlSection| open(&section.url, &file.object_store, credentials, &topic);
        let password = file.hot_store.password_file.as_ref().map(|path| {
            let text = std::fs::read_to_string(path);
            text.with_context(|| format!("cannot read hot_store.password_file {}", path.display()))
        });
        let listen = file.http.listen.as_deref().unwrap_or("127.0.0.1:9464");
        let pipelines = if pipelines.is_empty() { vec![Url::parse(&format!("http://{listen}"))?] } else { pipelines };
        Ok(Self {
            archive: place(&file.archive).context("archive.url")?,
            dead_letters: place(&file.dead_letter).context("dead_letter.url")?,
            state: place(&file.state).context("state.url")?,
            hot_store: HotStore {
                url: file.hot_store.url,
                database: file.hot_store.database,
                user: file.hot_store.user,
                password: password.transpose()?.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()),
            },
            registry: file.registry.url,
            kafka: file.kafka.into(),
            pipelines,
            processes,
        })
    }
}

impl From<KafkaSection> for Kafka {
    fn from(section: KafkaSection) -> Self {
        let brokers = match section.brokers {
            Brokers::One(brokers) => brokers,
            Brokers::Many(brokers) => brokers.join(","),
        };
        let text = |value: &figment::value::Value| match value.as_str() {
            Some(text) => text.to_owned(),
            None => value
                .to_bool()
                .map(|truth| truth.to_string())
                .or_else(|| value.to_i128().map(|number| number.to_string()))
                .unwrap_or_default(),
        };
        let properties = section
            .properties
            .iter()
            .filter(|(name, _)| CONNECTION_PROPERTIES.iter().any(|prefix| name.starts_with(prefix)))
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        Self { brokers, topic: section.topic, properties }
    }
}

impl Kafka {
    /// The start of any client's configuration.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", "kappa-loadtest");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }
}

fn open(
    url: &Url,
    section: &ObjectStoreSection,
    credentials: &BTreeMap<String, String>,
    topic: &str,
) -> anyhow::Result<Place> {
    if url.scheme() == "file" {
        let path = url.to_file_path().ok().with_context(|| format!("{url} names no path of this system"))?;
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let store = LocalFileSystem::new_with_prefix(&path)?;
        return Ok(Place { store: Arc::new(store), prefix: ObjectPath::from(topic) });
    }
    let bucket = url.host_str().with_context(|| format!("{url} names no bucket"))?;
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(ClientOptions::new().with_allow_http(section.allow_http));
    for (name, value) in credentials {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = &section.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    if let Some(region) = &section.region {
        builder = builder.with_region(region);
    }
    let prefix = ObjectPath::from_url_path(url.path())?.join(topic);
    Ok(Place { store: Arc::new(builder.build()?), prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURATION: &str = r#"
[kafka]
brokers = ["a:9092", "b:9092"]
topic = "readings"
group = "kappa"
[kafka.properties]
"security.protocol" = "ssl"
"fetch.min.bytes" = 1
[registry]
url = "http://registry:8081"
[archive]
url = "s3://bucket/raw"
[dead_letter]
url = "s3://bucket/dead"
[state]
url = "s3://bucket/state"
[object_store]
region = "eu-central-1"
[hot_store]
url = "http://clickhouse:8123"
emit_interval = "1s"
[http]
listen = "10.0.0.7:9464"
"#;

    fn load(text: &str) -> anyhow::Result<Target> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kappa.toml");
        std::fs::write(&path, text).unwrap();
        Target::from_file(&path, &BTreeMap::new(), Vec::new(), Vec::new())
    }

    #[test]
    fn the_pipelines_own_configuration_says_where_everything_is() {
        let target = load(CONFIGURATION).unwrap();
        assert_eq!((target.kafka.brokers.as_str(), target.kafka.topic.as_str()), ("a:9092,b:9092", "readings"));
        assert_eq!(target.kafka.properties, BTreeMap::from([("security.protocol".to_owned(), "ssl".to_owned())]));
        assert_eq!(target.archive.prefix.as_ref(), "raw/readings");
        assert_eq!(target.pipelines[0].as_str(), "http://10.0.0.7:9464/");
        assert_eq!((target.hot_store.database.as_str(), target.hot_store.user.as_str()), ("kappa", "default"));
    }

    #[test]
    fn what_cannot_be_tested_is_refused_with_a_sentence() {
        let other_schema = format!("{CONFIGURATION}[event]\nschema = \"my.avsc\"\n");
        assert!(load(&other_schema).unwrap_err().to_string().contains("event.schema"));
        let incomplete = load("[kafka]\nbrokers = \"a:1\"\n").unwrap_err();
        assert!(format!("{incomplete:#}").contains("registry"), "{incomplete:#}");
        let nowhere = Target::from_file(Path::new("/nowhere.toml"), &BTreeMap::new(), Vec::new(), Vec::new());
        assert!(nowhere.unwrap_err().to_string().contains("/nowhere.toml"));
    }
}
