//! What the pipeline would say of a record now: with the registry, the reader schema and the limits of today.

use std::collections::HashMap;
use std::time::Duration;

use kappa_core::contract::judge::RuleJudge;
use kappa_core::contract::rules::ContractRules;
use kappa_core::contract::{EventFields, TimeLimits};
use kappa_core::decode::{Columns, DecodeLimits, Decoder, NaturalSchema, ReaderSchema, SchemaReference, unframe};
use kappa_core::record::{LogBatch, LogRecord};
use kappa_core::reject::{Reason, Reject};
use serde::Serialize;

use crate::config::{Config, RegistryConfig};
use crate::contract::{self, DataContract};
use crate::ops::advice::advised;
use crate::registry::{RegistryClient, SchemaVerdict};
use crate::run::partition_settings;

/// How long the registry may take for an answer before a person is told.
const REGISTRY_ANSWER: Duration = Duration::from_secs(20);
/// Schemas that are kept compiled; garbage names new ones without end.
const MOST_SCHEMAS: usize = 1024;

/// Judges records as the pipeline does, one at a time.
#[derive(Debug)]
pub struct Judge {
    registry: RegistryClient,
    registry_url: String,
    reader: ReaderSchema,
    event: EventFields,
    time_limits: TimeLimits,
    rules: ContractRules,
    contract: Option<DataContract>,
    decode_limits: DecodeLimits,
    columns: Columns,
    schemas: HashMap<SchemaReference, Result<Writer, Reject>>,
}

/// A writer's schema, in the two ways to read with it.
#[derive(Debug)]
pub struct Writer {
    /// The registry's number.
    pub id: Option<i32>,
    /// Its text.
    pub avsc: String,
    /// To look at records.
    pub natural: NaturalSchema,
    /// As the pipeline reads, or why it cannot.
    decoder: Result<Decoder, Reject>,
}

/// What the pipeline would say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It would count.
    Accepted,
    /// It would be refused again.
    Refused {
        /// For this reason.
        reason: String,
        /// In a sentence.
        detail: String,
    },
}

impl From<Reject> for Verdict {
    fn from(reject: Reject) -> Self {
        Self::Refused { reason: reject.reason.name().into_owned(), detail: reject.detail }
    }
}

impl Judge {
    /// With the settings of the pipeline.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let settings = partition_settings(config)?;
        // A person waits: what the registry does not know now counts as unknown.
        let registry = RegistryConfig { unknown_id_retry: Duration::ZERO, ..config.registry.clone() };
        Ok(Self {
            registry: RegistryClient::new(&registry)?,
            registry_url: registry.url.to_string(),
            columns: settings.reader.new_columns(&settings.decode_limits),
            reader: settings.reader,
            event: settings.event,
            time_limits: settings.time_limits,
            rules: settings.contract,
            contract: contract::in_words(config),
            decode_limits: settings.decode_limits,
            schemas: HashMap::new(),
        })
    }

    /// The data contract in force.
    pub fn contract(&self) -> Option<&DataContract> {
        self.contract.as_ref()
    }

    /// The schema that a reference names, or why there is none to read with.
    pub async fn writer(&mut self, reference: SchemaReference) -> anyhow::Result<Result<&Writer, Reject>> {
        if !self.schemas.contains_key(&reference) {
            if self.schemas.len() >= MOST_SCHEMAS {
                self.schemas.clear();
            }
            let writer = self.look_up(reference).await?;
            self.schemas.insert(reference, writer);
        }
        Ok(self.schemas[&reference].as_ref().map_err(Clone::clone))
    }

    async fn look_up(&self, reference: SchemaReference) -> anyhow::Result<Result<Writer, Reject>> {
        let Ok(verdict) = tokio::time::timeout(REGISTRY_ANSWER, self.registry.schema(reference)).await else {
            return Err(advised(
                format!("the registry at {} does not answer", self.registry_url),
                "check registry.url; without it nobody can say what the pipeline would make of a record",
            ));
        };
        let schema = match verdict {
            SchemaVerdict::Known(schema) => schema,
            SchemaVerdict::Unknown { .. } => {
                let detail = format!("the registry does not know schema {reference}");
                return Ok(Err(Reject::new(Reason::UnknownSchemaId, detail)));
            }
            SchemaVerdict::NotAvro { detail } => return Ok(Err(Reject::new(Reason::SchemaNotAvro, detail))),
        };
        let decoder = Decoder::compile(&schema.avsc, &schema.references, &self.reader, &self.decode_limits);
        let natural = NaturalSchema::parse(&schema.avsc, &schema.references, &self.decode_limits);
        Ok(match natural {
            Ok(natural) => {
                Ok(Writer { id: schema.id, avsc: schema.avsc.clone(), natural, decoder: decoder.map_err(Reject::from) })
            }
            Err(error) => Err(decoder.err().map_or_else(
                || Reject::new(Reason::SchemaNotAvro, format!("not a valid Avro schema: {error}")),
                Reject::from,
            )),
        })
    }

    /// What the pipeline would say of a record with these bytes and that Kafka timestamp.
    pub async fn verdict(
        &mut self,
        value: Option<&[u8]>,
        headers: &[(String, Option<Vec<u8>>)],
        timestamp_ms: i64,
    ) -> anyhow::Result<Verdict> {
        let batch = as_batch(value, headers, timestamp_ms);
        let record = batch.get(0);
        let reference = match unframe(record.value, record.headers) {
            Ok((reference, _)) => reference,
            Err(reject) => return Ok(reject.into()),
        };
        if let Err(reject) = self.writer(reference).await? {
            return Ok(reject.into());
        }
        Ok(self.decide(reference, &record).map_or_else(Verdict::from, |()| Verdict::Accepted))
    }

    fn decide(&mut self, reference: SchemaReference, record: &LogRecord<'_>) -> Result<(), Reject> {
        let (_, body) = unframe(record.value, record.headers)?;
        let decoder = match &self.schemas[&reference] {
            Ok(writer) => writer.decoder.as_ref().map_err(Clone::clone)?,
            Err(reject) => return Err(reject.clone()),
        };
        let row = self.columns.rows();
        decoder.decode(body, &mut self.columns)?;
        let event = self.event.check(&self.columns, row, record.timestamp_ms, &self.time_limits);
        let event = event.and_then(|_| RuleJudge::new(self.rules.clone()).judge(&self.columns, row));
        // Not `truncate`: dictionaries would keep what this one has brought.
        self.columns = self.reader.new_columns(&self.decode_limits);
        event
    }
}

/// A record in the form that the core reads.
pub(super) fn as_batch(value: Option<&[u8]>, headers: &[(String, Option<Vec<u8>>)], timestamp_ms: i64) -> LogBatch {
    let mut batch = LogBatch::default();
    let headers = headers.iter().map(|(name, content)| (name.as_str(), content.as_deref()));
    batch.push(0, timestamp_ms, None, value, headers);
    batch
}
