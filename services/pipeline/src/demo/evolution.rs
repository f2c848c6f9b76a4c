//! The schema changes while records flow: its second version is registered as any producer would do it, and from then on
//! every second sensor writes by it, the others by the first. Nothing is restarted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;

use super::observer::SharedView;
use super::stack::TOPIC;
use crate::config::RegistryConfig;
use crate::registry::{ProposedSchema, RegistryClient};

/// The second version of the contract of the sensor readings.
pub const EVOLVED_SCHEMA: &str = include_str!("../../../../schemas/sensor-reading-v2.avsc");

/// When the schema changes, where the demo has no end of its own, and at the latest.
const LATEST: Duration = Duration::from_secs(20);

/// Tells the fleet when to change. Cheap to clone, all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Rollout(Arc<AtomicU32>);

impl Rollout {
    /// From now on, every second sensor writes by the schema of that id.
    pub fn begin(&self, schema_id: u32) {
        self.0.store(schema_id, Relaxed);
    }

    /// The schema by which every second sensor writes, once it is so far.
    pub fn schema_id(&self) -> Option<u32> {
        // No registry gives out 0.
        Some(self.0.load(Relaxed)).filter(|id| *id != 0)
    }
}

/// The change to come.
#[derive(Debug)]
pub(super) struct Evolution {
    task: JoinHandle<anyhow::Result<()>>,
}

impl Evolution {
    /// After a third of the time: registers the second version and begins the rollout.
    pub(super) fn plan(
        registry: &RegistryConfig,
        time_limit: Option<Duration>,
        rollout: Rollout,
        view: SharedView,
    ) -> anyhow::Result<Self> {
        let registry = RegistryClient::new(registry)?;
        let wait = time_limit.map_or(LATEST, |limit| (limit / 3).min(LATEST));
        let task = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let proposed = ProposedSchema { avsc: EVOLVED_SCHEMA.to_owned(), references: Vec::new() };
            let id = registry.register(&format!("{TOPIC}-value"), &proposed).await;
            let id = id.context("register the second version of the schema")?;
            tracing::info!(id, "the schema has changed; every second sensor writes by the new one");
            rollout.begin(id.unsigned_abs());
            view.set_evolved(id.unsigned_abs());
            Ok(())
        });
        Ok(Self { task })
    }

    /// The demo ends: gives the error if it has failed. If it was not so far yet, it never will be.
    pub(super) async fn finish(self) -> anyhow::Result<()> {
        if !self.task.is_finished() {
            self.task.abort();
            return Ok(());
        }
        self.task.await.context("the change of the schema has panicked")?
    }
}
