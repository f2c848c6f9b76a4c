//! Looking up a schema while everything else of the partition goes on.

use std::fmt;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use kappa_core::decode::{Decoder, SchemaReference};
use kappa_core::partition::{PartitionSettings, PartitionState, WriterSchema};
use kappa_core::reject::{Reason, Reject};

use super::super::context::PartitionContext;
use super::super::seams::SchemaSource;
use crate::registry::{RegisteredSchema, SchemaVerdict};

/// The question that is under way, if any.
#[derive(Default)]
pub(super) struct SchemaLookup(Option<LocalBoxFuture<'static, (SchemaReference, SchemaVerdict)>>);

impl fmt::Debug for SchemaLookup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SchemaLookup").field(&self.0.is_some()).finish()
    }
}

impl SchemaLookup {
    pub(super) fn ask<R: SchemaSource + 'static, H: 'static, C: 'static>(
        &mut self,
        context: &Arc<PartitionContext<R, H, C>>,
        reference: SchemaReference,
    ) {
        let context = Arc::clone(context);
        let asking = async move { (reference, context.registry.schema(reference).await) };
        self.0 = Some(asking.boxed_local());
    }

    /// The answer; waits for ever if nothing was asked.
    pub(super) async fn answer(&mut self) -> (SchemaReference, SchemaVerdict) {
        let Some(asking) = &mut self.0 else { return std::future::pending().await };
        let answer = asking.await;
        self.0 = None;
        answer
    }
}

/// Tells the state what the registry said.
pub(super) fn teach(state: &mut PartitionState, reference: SchemaReference, verdict: SchemaVerdict) {
    match verdict {
        SchemaVerdict::Known(schema) => {
            let compiled = compile(&schema, state.settings());
            state.learn(reference, compiled);
        }
        SchemaVerdict::Unknown { .. } => state.learn_unknown(reference),
        SchemaVerdict::NotAvro { detail } => {
            state.learn(reference, WriterSchema::Refused(Reject::new(Reason::SchemaNotAvro, detail)));
        }
    }
}

fn compile(schema: &RegisteredSchema, settings: &PartitionSettings) -> WriterSchema {
    match Decoder::compile(&schema.avsc, &schema.references, &settings.reader, &settings.decode_limits) {
        Ok(decoder) => WriterSchema::Readable { decoder: Arc::new(decoder), id: schema.id },
        Err(error) => WriterSchema::Refused(error.into()),
    }
}
