//! Brings the embedded stack up and writes the pipeline's configuration for it.

use std::fs;
use std::future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use url::Url;

use super::arguments::DemoArguments;
use super::embedded::broker::{EmbeddedBroker, FETCH_WAIT_MS};
use super::embedded::clickhouse::{ClickHouseProgram, EmbeddedClickHouse};
use super::embedded::directory::DemoDirectory;
use super::embedded::registry::{EmbeddedRegistry, SENSOR_READING_SCHEMA};
use super::fleet::message::SchemaIds;
use crate::config::Config;
use crate::registry::{ProposedSchema, RegistryClient};

/// The topic of the demo.
pub(super) const TOPIC: &str = "sensor-readings";

/// The pipeline's consumer group.
pub(super) const GROUP: &str = "kappa-demo";

/// The database in ClickHouse.
pub(super) const DATABASE: &str = "kappa";

/// A schema id far from those that the registry gives out.
const UNKNOWN_SCHEMA_ID: u32 = 4_000_000;

/// Another kind of record: valid Avro, and nothing that could be read as a sensor reading.
const HEARTBEAT_SCHEMA: &str = r#"{"type":"record","name":"Heartbeat","namespace":"kappa.sensors","fields":[
    {"name":"gateway","type":"string"},{"name":"uptime_seconds","type":"long"}]}"#;

/// A schema that isn't Avro at all.
const JSON_SCHEMA: &str = r#"{"type":"object","properties":{"sensor_id":{"type":"string"}}}"#;

/// Everything that the pipeline of the demo talks to.
#[derive(Debug)]
pub(super) struct Stack {
    pub directory: DemoDirectory,
    pub broker: EmbeddedBroker,
    pub registry: EmbeddedRegistry,
    pub registry_url: String,
    pub clickhouse_program: ClickHouseProgram,
    pub clickhouse: EmbeddedClickHouse,
}

impl Stack {
    /// Starts everything. What has been started is ended when this fails or its future is dropped.
    pub(super) async fn start(arguments: &DemoArguments, directory: DemoDirectory) -> anyhow::Result<Self> {
        println!("Starting ClickHouse (the first time takes a minute: its engine is installed) ...");
        let clickhouse_program = ClickHouseProgram::find(arguments.python.as_deref()).await?;
        let clickhouse = clickhouse_program.start(&directory).await?;
        println!("Starting a Kafka broker and a schema registry in this process ...");
        let broker = EmbeddedBroker::start(TOPIC, i32::from(arguments.partitions))?;
        let registry = EmbeddedRegistry::default();
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let registry_url = registry.serve(any_port, future::pending()).await?;
        Ok(Self { directory, broker, registry, registry_url, clickhouse_program, clickhouse })
    }

    /// Writes the pipeline's configuration into the directory, and reads it as `kappa run` would.
    pub(super) fn configure(&self, http: SocketAddr) -> anyhow::Result<Config> {
        let text = self.configuration(http)?;
        let path = self.directory.configuration();
        fs::write(&path, &text).with_context(|| format!("write {}", path.display()))?;
        Ok(Config::from_toml(&text)?)
    }

    /// Registers the contract as any producer would, and what some of the invalid records need.
    pub(super) async fn register_schemas(&self, config: &Config) -> anyhow::Result<SchemaIds> {
        let subject = format!("{TOPIC}-value");
        let proposed = ProposedSchema { avsc: SENSOR_READING_SCHEMA.to_owned(), references: Vec::new() };
        RegistryClient::new(&config.registry)?.register(&subject, &proposed).await?;
        // The same schema again: the same registration, with all that the registry knows of it.
        let reading = self.registry.register(&subject, "AVRO", SENSOR_READING_SCHEMA)?;
        let not_avro = self.registry.register("gateway-settings-value", "JSON", JSON_SCHEMA)?;
        let incompatible = self.registry.register("gateway-heartbeats-value", "AVRO", HEARTBEAT_SCHEMA)?;
        Ok(SchemaIds {
            reading: reading.id,
            reading_guid: reading.guid,
            not_avro: not_avro.id,
            incompatible: incompatible.id,
            unknown: UNKNOWN_SCHEMA_ID,
        })
    }

    /// Writes the processes' numbers and, last of all, the addresses, as `deploy/local` does for its stack.
    pub(super) fn tell_addresses(&self) -> anyhow::Result<()> {
        let write =
            |path: &Path, text: String| fs::write(path, text).with_context(|| format!("write {}", path.display()));
        let run = self.directory.run();
        fs::create_dir_all(&run).with_context(|| format!("create {}", run.display()))?;
        let processes = [("broker", Some(std::process::id())), ("clickhouse", self.clickhouse.id())];
        for (name, pid) in processes.into_iter().filter_map(|(name, pid)| Some((name, pid?))) {
            write(&run.join(format!("{name}.pid")), format!("{{\"pid\": {pid}}}\n"))?;
        }
        let (brokers, registry, clickhouse) =
            (self.broker.bootstrap_servers(), &self.registry_url, self.clickhouse.url());
        let addresses = format!(
            "export KAFKA_BROKERS={brokers}\nexport REGISTRY_URL={registry}\nexport CLICKHOUSE_URL={clickhouse}\n"
        );
        write(&self.directory.environment(), addresses)
    }

    /// An error if a part of it has ended by itself.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.clickhouse.has_ended() {
            bail!("ClickHouse has ended by itself ({status}); see {}", self.directory.clickhouse_log().display());
        }
        Ok(())
    }

    /// Ends it; its data stays.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let environment = self.directory.environment();
        fs::remove_file(&environment).with_context(|| format!("remove {}", environment.display()))?;
        self.clickhouse.stop().await
    }

    fn configuration(&self, http: SocketAddr) -> anyhow::Result<String> {
        let (archive, dead_letters) = (self.directory.archive(), self.directory.dead_letters());
        let (archive, dead_letters) = (directory_url(&archive)?, directory_url(&dead_letters)?);
        let state = directory_url(&self.directory.state())?;
        let (brokers, registry, hot_store) =
            (self.broker.bootstrap_servers(), &self.registry_url, self.clickhouse.url());
        Ok(format!(
            r#"# The configuration of the last `kappa demo`. Its broker, registry and ports have ended with it.

[kafka]
brokers = "{brokers}"
topic = "{TOPIC}"
group = "{GROUP}"

[kafka.properties]
# The embedded broker answers an empty fetch only after the whole of this time.
"fetch.wait.max.ms" = "{FETCH_WAIT_MS}"

[registry]
url = "{registry}"
# Some of the demo's records name a schema that does not exist. Nobody will register it.
unknown_id_retry = "2s"

[archive]
url = "{archive}"

[dead_letter]
url = "{dead_letters}"

[state]
url = "{state}"

[hot_store]
url = "{hot_store}"
database = "{DATABASE}"
emit_interval = "1s"

[checkpoint]
# Short, so that files appear while you watch.
interval = "15s"

[http]
listen = "{http}"
"#
        ))
    }
}

fn directory_url(path: &Path) -> anyhow::Result<Url> {
    Url::from_directory_path(path).map_err(|()| anyhow!("{} is not an absolute path", path.display()))
}
