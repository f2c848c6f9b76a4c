//! The Confluent-compatible HTTP interface, as far as we use it, and what counts as an answer.

use std::error::Error as _;
use std::time::Duration;

use kappa_core::decode::SchemaReference;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{RegistryConfig, ServiceUrl};

/// What the registries' own clients ask for; Apicurio's compatible interface answers it too.
const ACCEPT: &str = "application/vnd.schemaregistry.v1+json, application/json";

/// "Not found" in the registry's own numbering: 40401 subject, 40402 version, 40403 schema.
const NOT_FOUND_CODES: std::ops::RangeInclusive<i64> = 40_400..=40_499;

/// Largest answer that is read, bytes.
const LARGEST_ANSWER: usize = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ApiError {
    /// No answer, or none that a registry gives.
    Unavailable(String),
    /// The registry said no. `not_found`: in its own words, so that a stray 404 of a proxy does not count.
    Refused { status: u16, not_found: bool, message: String },
}

/// A schema in an answer; which fields are there depends on the question.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SchemaBody {
    pub(super) schema: String,
    #[serde(default, rename = "schemaType")]
    pub(super) schema_type: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) references: Vec<SchemaReferral>,
    #[serde(default)]
    pub(super) id: Option<i32>,
    #[serde(default)]
    version: Option<i32>,
}

/// A named type that a schema takes from another subject.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct SchemaReferral {
    /// Full name of the type.
    #[serde(default)]
    pub name: String,
    /// Where it is registered.
    pub subject: String,
    /// As which version.
    pub version: i32,
}

/// A schema that is about to be registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProposedSchema {
    /// Its text.
    pub avsc: String,
    /// What it takes from other subjects.
    pub references: Vec<SchemaReferral>,
}

impl ProposedSchema {
    fn body(&self) -> Value {
        let mut body = json!({ "schema": self.avsc });
        // Left out where there are none: some registries know no such thing.
        if !self.references.is_empty() {
            body["references"] = json!(self.references);
        }
        body
    }
}

/// One version of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredVersion {
    /// The subject.
    pub subject: String,
    /// Its version.
    pub version: i32,
    /// Id of the schema.
    pub id: Option<i32>,
    /// `AVRO` where the registry says nothing.
    pub schema_type: String,
    /// The schema's text.
    pub avsc: String,
    /// The texts of the schemas that it refers to, each behind those that it needs itself.
    pub references: Vec<String>,
}

/// What the registry's compatibility rule says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Compatibility {
    /// Whether the schema may follow the version that was asked about.
    #[serde(rename = "is_compatible")]
    pub compatible: bool,
    /// What stands against it, in the registry's words.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub messages: Vec<String>,
}

impl SchemaBody {
    pub(super) fn into_version(self, subject: &str, references: Vec<String>) -> RegisteredVersion {
        RegisteredVersion {
            subject: subject.to_owned(),
            version: self.version.unwrap_or_default(),
            id: self.id,
            schema_type: self.schema_type.unwrap_or_else(|| "AVRO".to_owned()),
            avsc: self.schema,
            references,
        }
    }
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Requests and answers, one at a time, nothing remembered.
#[derive(Debug)]
pub(super) struct Api {
    http: reqwest::Client,
    config: RegistryConfig,
}

impl Api {
    pub(super) fn new(config: &RegistryConfig) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(3))
            .timeout(Duration::from_secs(10))
            .build()?;
        Ok(Self { http, config: config.clone() })
    }

    pub(super) fn url(&self) -> &ServiceUrl {
        &self.config.url
    }

    pub(super) async fn schema(&self, reference: SchemaReference) -> Result<SchemaBody, ApiError> {
        let name = reference.to_string();
        let kind = match reference {
            SchemaReference::Id(_) => "ids",
            SchemaReference::Guid(_) => "guids",
        };
        self.send(self.request(Method::GET, &["schemas", kind, &name])).await
    }

    pub(super) async fn version(&self, subject: &str, version: &str) -> Result<SchemaBody, ApiError> {
        let request = self.request(Method::GET, &["subjects", subject, "versions", version]);
        // A schema that refers to a version stays readable when that version is deleted.
        let request = if version == "latest" { request } else { request.query(&[("deleted", "true")]) };
        self.send(request).await
    }

    pub(super) async fn versions(&self, subject: &str) -> Result<Vec<i32>, ApiError> {
        self.send(self.request(Method::GET, &["subjects", subject, "versions"])).await
    }

    pub(super) async fn register(&self, subject: &str, schema: &ProposedSchema) -> Result<i32, ApiError> {
        #[derive(Deserialize)]
        struct Registered {
            id: i32,
        }
        let request = self.request(Method::POST, &["subjects", subject, "versions"]);
        let registered: Registered = self.send(request.json(&schema.body())).await?;
        Ok(registered.id)
    }

    pub(super) async fn compatibility(
        &self,
        subject: &str,
        version: &str,
        schema: &ProposedSchema,
    ) -> Result<Compatibility, ApiError> {
        let path = ["compatibility", "subjects", subject, "versions", version];
        let request = self.request(Method::POST, &path).query(&[("verbose", "true")]);
        self.send(request.json(&schema.body())).await
    }

    /// The rule of a subject, the registry's own where it has none.
    pub(super) async fn rule(&self, subject: &str) -> Result<String, ApiError> {
        #[derive(Deserialize)]
        struct Level {
            #[serde(rename = "compatibilityLevel")]
            level: String,
        }
        let of_subject = self.request(Method::GET, &["config", subject]).query(&[("defaultToGlobal", "true")]);
        let level: Level = match self.send(of_subject).await {
            Err(ApiError::Refused { .. }) => self.send(self.request(Method::GET, &["config"])).await?,
            other => other?,
        };
        Ok(level.level)
    }

    pub(super) async fn subjects(&self) -> Result<Vec<String>, ApiError> {
        self.send(self.request(Method::GET, &["subjects"])).await
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.http.request(method, self.config.url.join(path.iter().copied())).header(reqwest::header::ACCEPT, ACCEPT)
    }

    async fn send<T: DeserializeOwned>(&self, mut request: RequestBuilder) -> Result<T, ApiError> {
        if let Some(user) = &self.config.user {
            let password = self.config.password().map_err(|error| ApiError::Unavailable(format!("{error:#}")))?;
            request = request.basic_auth(user, password.as_ref().map(crate::config::Secret::expose));
        }
        let response = request.send().await.map_err(|error| ApiError::Unavailable(innermost(error)))?;
        let status = response.status();
        let body = read(response).await?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                ApiError::Unavailable(format!("it answers {status} with something that is not a registry's: {error}"))
            });
        }
        Err(refusal(status, &body))
    }
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| ApiError::Unavailable(innermost(error)))? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(ApiError::Unavailable(format!("its answer is larger than {LARGEST_ANSWER} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A status that is no success: an outage where nobody decided anything, else the registry's word.
fn refusal(status: StatusCode, body: &[u8]) -> ApiError {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = answer["message"]
        .as_str()
        .or_else(|| answer["title"].as_str())
        .map_or_else(|| String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned(), str::to_owned);
    let nobody_decided = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY);
    if nobody_decided {
        return ApiError::Unavailable(format!("it answers {status}: {message}"));
    }
    let not_found = status == StatusCode::NOT_FOUND && says_not_found(&answer);
    ApiError::Refused { status: status.as_u16(), not_found, message }
}

/// Confluent, Karapace and Apicurio's compatible interface number their errors; Apicurio's own names its exceptions.
fn says_not_found(answer: &Value) -> bool {
    let code = answer["error_code"].as_i64();
    let numbered = code.is_some_and(|code| NOT_FOUND_CODES.contains(&code));
    let named = answer["name"].as_str().is_some_and(|name| name.ends_with("NotFoundException"));
    numbered || named
}

/// reqwest's outer messages say only that something failed.
fn innermost(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    message
}
