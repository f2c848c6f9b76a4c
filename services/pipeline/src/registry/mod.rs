//! The schema registry: which schema a record was written with.
//!
//! Three things must not be mixed up. A registry that does not answer is an outage: the partition waits, for ever if
//! need be, because its records are fine. A registry that answers "I do not know this id" is asked again for a bounded
//! time, because registries replicate with a delay; then the record goes to the dead letters. A schema that is no Avro
//! is known at once. See `docs/decisions/0003-registry-client.md` for why this is not left to a library.

mod api;
mod patience;
mod references;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use kappa_core::decode::SchemaReference;

use crate::config::RegistryConfig;
use crate::ops::Dependency;
use crate::ops::status::StatusBoard;
use api::{Api, ApiError, SchemaBody};
use patience::Patience;

pub use api::{Compatibility, ProposedSchema, RegisteredVersion, SchemaReferral};

/// How long an "unknown" or "not Avro" is believed without asking again.
const NEGATIVE_ANSWER_HOLDS: Duration = Duration::from_secs(30);

/// Slots beyond which forgotten answers are thrown away.
const MANY_SLOTS: usize = 4096;

/// A schema as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// The registry's number; `None` where a GUID was asked for and no number came with it.
    pub id: Option<i32>,
    /// The schema's text.
    pub avsc: String,
    /// The texts of the schemas that it refers to, each behind those that it needs itself.
    pub references: Vec<String>,
}

/// What the registry says of a schema reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaVerdict {
    /// It has this Avro schema.
    Known(Arc<RegisteredSchema>),
    /// It answers, and does not know it.
    Unknown {
        /// What it said.
        detail: String,
    },
    /// It knows it, and it is of no use as Avro.
    NotAvro {
        /// What it is instead.
        detail: String,
    },
}

/// Why a request of a person or a command failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The registry did not answer, or not as a registry does.
    #[error("the registry at {url} does not answer: {detail}")]
    Unavailable {
        /// Where it should be.
        url: String,
        /// What happened instead.
        detail: String,
    },
    /// It does not have what was asked for.
    #[error("the registry does not know it: {0}")]
    NotFound(String),
    /// It refuses.
    #[error("the registry refuses ({status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its own words.
        message: String,
    },
}

/// A client that remembers what it was told. Cheap to share by `Arc`.
#[derive(Debug)]
pub struct RegistryClient {
    api: Api,
    unknown_id_retry: Duration,
    patience: Patience,
    board: Option<Arc<StatusBoard>>,
    slots: Mutex<HashMap<SchemaReference, Arc<Slot>>>,
}

/// What is known of one reference. Whoever holds the lock asks; the others wait for the answer.
type Slot = tokio::sync::Mutex<Option<Answer>>;

#[derive(Debug)]
struct Answer {
    verdict: SchemaVerdict,
    at: Instant,
}

impl Answer {
    fn holds(&self) -> bool {
        matches!(self.verdict, SchemaVerdict::Known(_)) || self.at.elapsed() < NEGATIVE_ANSWER_HOLDS
    }
}

/// Why one look-up gave no schema.
enum Miss {
    Unavailable(String),
    Unknown(String),
    NotAvro(String),
}

impl RegistryClient {
    /// A client; nothing is asked yet.
    pub fn new(config: &RegistryConfig) -> anyhow::Result<Self> {
        Ok(Self {
            api: Api::new(config)?,
            unknown_id_retry: config.unknown_id_retry,
            patience: Patience::new(config.unknown_id_retry),
            board: None,
            slots: Mutex::default(),
        })
    }

    /// Reports the registry's health to the board, which also logs its changes.
    #[must_use]
    pub fn with_board(mut self, board: Arc<StatusBoard>) -> Self {
        self.board = Some(board);
        self
    }

    /// What the registry says of a schema. Waits through outages; positive answers are remembered for ever, since ids
    /// are immutable. May be dropped half-way.
    pub async fn schema(&self, reference: SchemaReference) -> SchemaVerdict {
        let slot = self.slot(reference);
        let mut answer = slot.lock().await;
        if let Some(answer) = answer.as_ref().filter(|answer| answer.holds()) {
            return answer.verdict.clone();
        }
        let verdict = self.ask_until_answered(reference).await;
        *answer = Some(Answer { verdict: verdict.clone(), at: Instant::now() });
        verdict
    }

    /// The latest version of a subject.
    pub async fn latest(&self, subject: &str) -> Result<RegisteredVersion, RegistryError> {
        self.version(subject, "latest").await
    }

    /// A version of a subject: its number, or `latest`.
    pub async fn version(&self, subject: &str, version: &str) -> Result<RegisteredVersion, RegistryError> {
        let body = self.api.version(subject, version).await.map_err(|error| self.error(error))?;
        let references = self.texts(&body.references).await?;
        Ok(body.into_version(subject, references))
    }

    /// The numbers of a subject's versions, the oldest first.
    pub async fn versions(&self, subject: &str) -> Result<Vec<i32>, RegistryError> {
        let mut versions = self.api.versions(subject).await.map_err(|error| self.error(error))?;
        versions.sort_unstable();
        Ok(versions)
    }

    /// The texts of the schemas that a schema refers to, directly or not, each behind those that it needs itself.
    pub async fn texts(&self, references: &[SchemaReferral]) -> Result<Vec<String>, RegistryError> {
        references::resolve(&self.api, references).await.map_err(|miss| match miss {
            Miss::Unavailable(detail) => self.error(ApiError::Unavailable(detail)),
            Miss::Unknown(detail) | Miss::NotAvro(detail) => RegistryError::NotFound(detail),
        })
    }

    /// Registers a schema and gives its id; the id that it has if it is registered already.
    pub async fn register(&self, subject: &str, schema: &ProposedSchema) -> Result<i32, RegistryError> {
        self.api.register(subject, schema).await.map_err(|error| self.error(error))
    }

    /// Whether the registry's rule for the subject lets this schema follow that version.
    pub async fn check_compatibility(
        &self,
        subject: &str,
        version: i32,
        schema: &ProposedSchema,
    ) -> Result<Compatibility, RegistryError> {
        let answer = self.api.compatibility(subject, &version.to_string(), schema).await;
        answer.map_err(|error| self.error(error))
    }

    /// The registry's rule for a subject, such as `BACKWARD` or `FULL_TRANSITIVE`.
    pub async fn rule(&self, subject: &str) -> Result<String, RegistryError> {
        self.api.rule(subject).await.map_err(|error| self.error(error))
    }

    /// All subjects: the cheapest question that only a registry can answer.
    pub async fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        self.api.subjects().await.map_err(|error| self.error(error))
    }

    async fn ask_until_answered(&self, reference: SchemaReference) -> SchemaVerdict {
        // Jitter adds up to as much again: 5 s at most.
        let schedule = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_millis(2500))
            .with_jitter()
            .without_max_times();
        let mut outage = schedule.build();
        let mut unknown = schedule.build();
        let mut waited = Duration::ZERO;
        loop {
            let miss = match self.look_up(reference).await {
                Ok(schema) => {
                    self.report(None);
                    return SchemaVerdict::Known(Arc::new(schema));
                }
                Err(miss) => miss,
            };
            match miss {
                Miss::Unavailable(detail) => {
                    self.report(Some(&detail));
                    tokio::time::sleep(outage.next().unwrap_or(Duration::from_secs(5))).await;
                }
                Miss::NotAvro(detail) => {
                    self.report(None);
                    return SchemaVerdict::NotAvro { detail };
                }
                Miss::Unknown(detail) => {
                    self.report(None);
                    outage = schedule.build();
                    let delay = unknown.next().unwrap_or(Duration::from_secs(5));
                    let delay = delay.min(self.unknown_id_retry.saturating_sub(waited));
                    if delay.is_zero() || !self.patience.spend(delay) {
                        tracing::warn!(schema = %reference, %detail, "unknown to the registry; dead-lettering its records");
                        return SchemaVerdict::Unknown { detail };
                    }
                    waited += delay;
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    async fn look_up(&self, reference: SchemaReference) -> Result<RegisteredSchema, Miss> {
        let body = match self.api.schema(reference).await {
            Ok(body) => body,
            Err(error) => return Err(self.miss(reference, error).await),
        };
        require_avro(&body, &format!("schema {reference}"))?;
        let references = references::resolve(&self.api, &body.references).await?;
        let asked_for = match reference {
            SchemaReference::Id(id) => Some(id),
            SchemaReference::Guid(_) => None,
        };
        Ok(RegisteredSchema { id: asked_for.or(body.id), avsc: body.schema, references })
    }

    async fn miss(&self, reference: SchemaReference, error: ApiError) -> Miss {
        match error {
            ApiError::Unavailable(detail) => Miss::Unavailable(detail),
            ApiError::Refused { not_found: true, message, .. } => Miss::Unknown(message),
            // A registry without this endpoint answers 404 in any form. If it is a registry otherwise, waiting would
            // not help: a record with a GUID header must not hold its partition for ever.
            ApiError::Refused { status: 404 | 405, .. }
                if matches!(reference, SchemaReference::Guid(_)) && self.api.subjects().await.is_ok() =>
            {
                Miss::Unknown("the registry cannot look schemas up by GUID".to_owned())
            }
            ApiError::Refused { status, message, .. } => Miss::Unavailable(format!("it answers {status}: {message}")),
        }
    }

    fn slot(&self, reference: SchemaReference) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MANY_SLOTS {
            slots.retain(|_, slot| slot.try_lock().map_or(true, |answer| answer.as_ref().is_some_and(Answer::holds)));
        }
        Arc::clone(slots.entry(reference).or_default())
    }

    fn report(&self, failure: Option<&str>) {
        let Some(board) = &self.board else { return };
        match failure {
            None => board.dependency_ok(Dependency::Registry),
            Some(detail) => board.dependency_failing(Dependency::Registry, detail),
        }
    }

    fn error(&self, error: ApiError) -> RegistryError {
        match error {
            ApiError::Unavailable(detail) => RegistryError::Unavailable { url: self.api.url().to_string(), detail },
            ApiError::Refused { not_found: true, message, .. } => RegistryError::NotFound(message),
            ApiError::Refused { status, message, .. } => RegistryError::Refused { status, message },
        }
    }
}

fn require_avro(body: &SchemaBody, name: &str) -> Result<(), Miss> {
    match body.schema_type.as_deref() {
        None | Some("AVRO") => Ok(()),
        Some(other) => Err(Miss::NotAvro(format!("{name} is registered as {other}, not as AVRO"))),
    }
}

#[cfg(test)]
mod tests;
