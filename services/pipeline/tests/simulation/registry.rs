//! A registry that learns of a schema late.

use std::sync::Arc;

use kappa_core::decode::SchemaReference;
use kappa_pipeline::partition::seams::SchemaSource;
use kappa_pipeline::registry::{RegisteredSchema, SchemaVerdict};

use crate::records::{READER, Writer};
use crate::world::{START_MS, World};

/// When the late schema becomes known.
pub(crate) const KNOWN_AFTER_MS: i64 = 60_000;

#[derive(Debug, Clone)]
pub(crate) struct SimRegistry(pub(crate) Arc<World>);

impl SchemaSource for SimRegistry {
    async fn schema(&self, reference: SchemaReference) -> SchemaVerdict {
        self.0.delay().await;
        let SchemaReference::Id(id) = reference else {
            return SchemaVerdict::Unknown { detail: "no guids here".to_owned() };
        };
        let is_known =
            id == Writer::Known.id() || (id == Writer::KnownLater.id() && self.0.now_ms() > START_MS + KNOWN_AFTER_MS);
        if !is_known {
            return SchemaVerdict::Unknown { detail: format!("schema {id} not found") };
        }
        let schema = RegisteredSchema { id: Some(id), avsc: READER.to_owned(), references: Vec::new() };
        SchemaVerdict::Known(Arc::new(schema))
    }
}
