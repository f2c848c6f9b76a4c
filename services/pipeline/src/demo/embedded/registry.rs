//! A schema registry in this process: the part of Confluent's interface that producers and consumers of Avro use.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use apache_avro::Schema;
use apache_avro::schema_compatibility::SchemaCompatibility;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

/// The contract of the sensor readings, as in `schemas/`.
pub const SENSOR_READING_SCHEMA: &str = include_str!("../../../../../schemas/sensor-reading.avsc");

/// The schemas and their subjects; cheap to clone, all clones are one registry.
#[derive(Debug, Clone, Default)]
pub struct EmbeddedRegistry {
    content: Arc<Mutex<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    /// The schema of id `n` is at `n - 1`.
    schemas: Vec<RegisteredSchema>,
    /// Ids of the versions, from version 1 on.
    subjects: BTreeMap<String, Vec<u32>>,
}

/// A schema that has been given an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// What the framing of a record names.
    pub id: u32,
    /// What the header of a record names.
    pub guid: [u8; 16],
    /// `AVRO`, `JSON` or `PROTOBUF`.
    pub schema_type: String,
    /// The text, as it was registered.
    pub schema: String,
}

/// Body of a registration, look-up or compatibility check.
#[derive(Debug, Deserialize)]
struct SchemaRequest {
    schema: String,
    #[serde(rename = "schemaType", default = "avro")]
    schema_type: String,
}

fn avro() -> String {
    "AVRO".to_owned()
}

/// An answer other than success: the status, Confluent's error code and a sentence.
#[derive(Debug)]
struct Refusal(StatusCode, u32, String);

impl Refusal {
    fn subject_not_found(subject: &str) -> Self {
        Self(StatusCode::NOT_FOUND, 40_401, format!("Subject '{subject}' not found."))
    }

    fn version_not_found(version: &str) -> Self {
        Self(StatusCode::NOT_FOUND, 40_402, format!("Version {version} not found."))
    }

    fn schema_not_found(what: &str) -> Self {
        Self(StatusCode::NOT_FOUND, 40_403, format!("Schema {what} not found"))
    }

    fn invalid_schema(why: impl std::fmt::Display) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, 42_201, format!("Invalid schema: {why}"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error_code": self.1, "message": self.2}))).into_response()
    }
}

impl EmbeddedRegistry {
    /// Listens on `address` (port 0 for any) and serves until `stop` is ready. Gives the URL.
    pub async fn serve(
        &self,
        address: SocketAddr,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<String> {
        let listener =
            tokio::net::TcpListener::bind(address).await.context("open a port for the embedded schema registry")?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = self.router();
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
                tracing::error!(%error, "the embedded schema registry has ended");
            }
        });
        Ok(url)
    }

    /// Registers `schema` under `subject`; the same schema again gets the same id.
    pub fn register(&self, subject: &str, schema_type: &str, schema: &str) -> anyhow::Result<RegisteredSchema> {
        let request = SchemaRequest { schema: schema.to_owned(), schema_type: schema_type.to_owned() };
        self.with(|content| content.register(subject, &request))
            .map_err(|refusal| anyhow::anyhow!("register {subject}: {}", refusal.2))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Content) -> T) -> T {
        change(&mut self.content.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/", get(async || Json(json!({}))))
            .route("/config", get(async || Json(json!({"compatibilityLevel": "BACKWARD"}))))
            .route("/schemas/types", get(async || Json(json!(["AVRO", "JSON", "PROTOBUF"]))))
            .route("/schemas/ids/{id}", get(schema_by_id))
            .route("/schemas/guids/{guid}", get(schema_by_guid))
            .route("/subjects", get(subjects))
            .route("/subjects/{subject}", post(look_up))
            .route("/subjects/{subject}/versions", get(versions).post(register))
            .route("/subjects/{subject}/versions/{version}", get(version))
            .route("/compatibility/subjects/{subject}/versions/{version}", post(check_compatibility))
            .with_state(self.clone())
    }
}

impl Content {
    fn register(&mut self, subject: &str, request: &SchemaRequest) -> Result<RegisteredSchema, Refusal> {
        check_text(request)?;
        if let Some(latest) = self.subjects.get(subject).and_then(|ids| ids.last()).and_then(|id| self.by_id(*id))
            && !is_compatible(request, latest)?
        {
            let message = format!("Schema being registered is incompatible with the latest of subject '{subject}'");
            return Err(Refusal(StatusCode::CONFLICT, 409, message));
        }
        let registered = self.find_or_add(request);
        let versions = self.subjects.entry(subject.to_owned()).or_default();
        if !versions.contains(&registered.id) {
            versions.push(registered.id);
        }
        Ok(registered)
    }

    fn find_or_add(&mut self, request: &SchemaRequest) -> RegisteredSchema {
        let same = |known: &&RegisteredSchema| {
            known.schema_type == request.schema_type && same_json(&known.schema, &request.schema)
        };
        if let Some(known) = self.schemas.iter().find(same) {
            return known.clone();
        }
        let registered = RegisteredSchema {
            id: self.schemas.len() as u32 + 1,
            guid: xxh3_128(request.schema.as_bytes()).to_be_bytes(),
            schema_type: request.schema_type.clone(),
            schema: request.schema.clone(),
        };
        self.schemas.push(registered.clone());
        registered
    }

    fn by_id(&self, id: u32) -> Option<&RegisteredSchema> {
        self.schemas.get((id as usize).checked_sub(1)?)
    }

    fn versions(&self, subject: &str) -> Result<&[u32], Refusal> {
        self.subjects.get(subject).map(Vec::as_slice).ok_or_else(|| Refusal::subject_not_found(subject))
    }

    /// The version of that number, or `latest`.
    fn version(&self, subject: &str, version: &str) -> Result<(usize, &RegisteredSchema), Refusal> {
        let ids = self.versions(subject)?;
        let number = if version == "latest" { Some(ids.len()) } else { version.parse().ok() };
        let index = number.and_then(|number| number.checked_sub(1));
        let found = index.and_then(|index| Some((index + 1, self.by_id(*ids.get(index)?)?)));
        found.ok_or_else(|| Refusal::version_not_found(version))
    }
}

impl RegisteredSchema {
    /// The GUID as it is written.
    pub fn guid_text(&self) -> String {
        let hex = format!("{:032x}", u128::from_be_bytes(self.guid));
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    fn to_json(&self) -> Value {
        let mut answer = json!({"guid": self.guid_text(), "schema": self.schema});
        // As the original does it: Avro goes without saying.
        if self.schema_type != "AVRO" {
            answer["schemaType"] = json!(self.schema_type);
        }
        answer
    }
}

/// Whether two texts are the same JSON; white space and such do not make another schema.
fn same_json(left: &str, right: &str) -> bool {
    left == right || matches!((parse(left), parse(right)), (Some(left), Some(right)) if left == right)
}

fn parse(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

fn check_text(request: &SchemaRequest) -> Result<(), Refusal> {
    match request.schema_type.as_str() {
        "AVRO" => Schema::parse_str(&request.schema).map(|_| ()).map_err(Refusal::invalid_schema),
        "JSON" => parse(&request.schema).map(|_| ()).ok_or_else(|| Refusal::invalid_schema("not JSON")),
        "PROTOBUF" => Ok(()),
        other => Err(Refusal::invalid_schema(format!("no such type: {other}"))),
    }
}

/// Compatibility of the kind BACKWARD: the new schema can read what the old one wrote.
fn is_compatible(request: &SchemaRequest, old: &RegisteredSchema) -> Result<bool, Refusal> {
    if request.schema_type != old.schema_type {
        return Ok(false);
    }
    if request.schema_type != "AVRO" {
        return Ok(true);
    }
    let reader = Schema::parse_str(&request.schema).map_err(Refusal::invalid_schema)?;
    let writer = Schema::parse_str(&old.schema).map_err(Refusal::invalid_schema)?;
    Ok(SchemaCompatibility::can_read(&writer, &reader).is_ok())
}

type Answer = Result<Json<Value>, Refusal>;

async fn schema_by_id(State(registry): State<EmbeddedRegistry>, Path(id): Path<String>) -> Answer {
    let known = |content: &mut Content| id.parse().ok().and_then(|id| content.by_id(id)).map(RegisteredSchema::to_json);
    registry.with(known).map(Json).ok_or_else(|| Refusal::schema_not_found(&id))
}

async fn schema_by_guid(State(registry): State<EmbeddedRegistry>, Path(guid): Path<String>) -> Answer {
    let wanted = guid.to_lowercase();
    let found = registry.with(|content| content.schemas.iter().find(|known| known.guid_text() == wanted).cloned());
    let known = found.ok_or_else(|| Refusal::schema_not_found(&guid))?;
    let mut answer = known.to_json();
    answer["id"] = json!(known.id);
    Ok(Json(answer))
}

async fn subjects(State(registry): State<EmbeddedRegistry>) -> Json<Value> {
    Json(registry.with(|content| json!(content.subjects.keys().collect::<Vec<_>>())))
}

async fn versions(State(registry): State<EmbeddedRegistry>, Path(subject): Path<String>) -> Answer {
    let count = registry.with(|content| content.versions(&subject).map(<[u32]>::len))?;
    Ok(Json(json!((1..=count).collect::<Vec<_>>())))
}

async fn version(State(registry): State<EmbeddedRegistry>, Path((subject, version)): Path<(String, String)>) -> Answer {
    registry.with(|content| {
        let (number, known) = content.version(&subject, &version)?;
        Ok(Json(described(&subject, number, known)))
    })
}

async fn register(
    State(registry): State<EmbeddedRegistry>,
    Path(subject): Path<String>,
    Json(request): Json<SchemaRequest>,
) -> Answer {
    let registered = registry.with(|content| content.register(&subject, &request))?;
    Ok(Json(json!({"id": registered.id, "guid": registered.guid_text()})))
}

async fn look_up(
    State(registry): State<EmbeddedRegistry>,
    Path(subject): Path<String>,
    Json(request): Json<SchemaRequest>,
) -> Answer {
    registry.with(|content| {
        let ids = content.versions(&subject)?;
        let known = ids.iter().enumerate().find_map(|(index, id)| {
            let known = content.by_id(*id)?;
            same_json(&known.schema, &request.schema).then_some((index + 1, known))
        });
        let (number, known) = known.ok_or_else(|| Refusal::schema_not_found("of this text"))?;
        Ok(Json(described(&subject, number, known)))
    })
}

async fn check_compatibility(
    State(registry): State<EmbeddedRegistry>,
    Path((subject, version)): Path<(String, String)>,
    Json(request): Json<SchemaRequest>,
) -> Answer {
    check_text(&request)?;
    let compatible = registry.with(|content| is_compatible(&request, content.version(&subject, &version)?.1))?;
    Ok(Json(json!({"is_compatible": compatible})))
}

fn described(subject: &str, version: usize, known: &RegisteredSchema) -> Value {
    let mut answer = known.to_json();
    answer["subject"] = json!(subject);
    answer["version"] = json!(version);
    answer["id"] = json!(known.id);
    answer
}

#[cfg(test)]
mod tests;
