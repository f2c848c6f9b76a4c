//! The schema registry: makes sure that it knows what is sent.

use anyhow::{Context as _, bail};
use serde::Deserialize;
use url::Url;

/// What the harness sends.
pub const SENSOR_READING_SCHEMA: &str = include_str!("../../schemas/sensor-reading.avsc");

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

#[derive(Deserialize)]
struct Registered {
    id: u32,
}

/// Registers the schema of the readings for a topic's values; its id. A schema that is there already keeps its id.
pub async fn register_schema(client: &reqwest::Client, registry: &Url, topic: &str) -> anyhow::Result<u32> {
    let address = format!("{}/subjects/{topic}-value/versions", registry.as_str().trim_end_matches('/'));
    let body = serde_json::json!({ "schema": SENSOR_READING_SCHEMA }).to_string();
    let answer = client
        .post(&address)
        .header("Content-Type", CONTENT_TYPE)
        .body(body)
        .send()
        .await
        .with_context(|| format!("the schema registry does not answer at {address}: check registry.url"))?;
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    if !status.is_success() {
        bail!("the schema registry refuses the schema of the readings ({status}): {}", text.trim());
    }
    let registered: Registered =
        serde_json::from_str(&text).with_context(|| format!("the schema registry answers without an id: {text}"))?;
    Ok(registered.id)
}
