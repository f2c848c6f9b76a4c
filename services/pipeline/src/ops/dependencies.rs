//! Whether the services that the pipeline depends on answer, logged once per change.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

/// A service that the pipeline depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dependency {
    /// The brokers.
    Kafka,
    /// The schema registry.
    Registry,
    /// Archive, dead letters and state.
    ObjectStore,
    /// ClickHouse.
    HotStore,
}

impl Dependency {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Kafka, Self::Registry, Self::ObjectStore, Self::HotStore];

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Registry => "registry",
            Self::ObjectStore => "object_store",
            Self::HotStore => "hot_store",
        }
    }
}

/// How a dependency does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DependencyReport {
    /// Which one.
    pub dependency: Dependency,
    /// Whether its last answer was a good one; null before the first.
    pub ok: Option<bool>,
    /// How long it has been failing.
    pub failing_for_seconds: Option<f64>,
    /// Its last failure, even if it is well again.
    pub last_error: Option<String>,
    /// Failures since the start.
    pub failures: u64,
}

#[derive(Debug, Default)]
struct Health {
    ok: Option<bool>,
    failing_since: Option<Instant>,
    last_error: Option<String>,
    failures: u64,
}

/// All dependencies.
#[derive(Debug, Default)]
pub(super) struct Dependencies([Mutex<Health>; Dependency::ALL.len()]);

impl Dependencies {
    /// It answered.
    pub(super) fn ok(&self, dependency: Dependency) {
        let mut health = self.health(dependency);
        let failed_since = health.failing_since.take();
        health.ok = Some(true);
        drop(health);
        if let Some(since) = failed_since {
            tracing::info!(dependency = dependency.name(), after_seconds = since.elapsed().as_secs(), "answers again");
        }
    }

    /// It failed.
    pub(super) fn failing(&self, dependency: Dependency, error: &str) {
        let mut health = self.health(dependency);
        let changed = health.ok != Some(false);
        health.ok = Some(false);
        health.failing_since.get_or_insert_with(Instant::now);
        health.last_error = Some(error.to_owned());
        health.failures += 1;
        drop(health);
        if changed {
            tracing::warn!(dependency = dependency.name(), error, "fails; trying again until it answers");
        } else {
            tracing::debug!(dependency = dependency.name(), error, "still fails");
        }
    }

    /// How all of them do.
    pub(super) fn report(&self) -> Vec<DependencyReport> {
        let report = |dependency: Dependency| {
            let health = self.health(dependency);
            DependencyReport {
                dependency,
                ok: health.ok,
                failing_for_seconds: health.failing_since.map(|since| since.elapsed().as_secs_f64()),
                last_error: health.last_error.clone(),
                failures: health.failures,
            }
        };
        Dependency::ALL.into_iter().map(report).collect()
    }

    fn health(&self, dependency: Dependency) -> std::sync::MutexGuard<'_, Health> {
        self.0[dependency as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_and_well_again() {
        let dependencies = Dependencies::default();
        let registry = |dependencies: &Dependencies| dependencies.report()[Dependency::Registry as usize].clone();
        assert_eq!(registry(&dependencies).ok, None);
        dependencies.failing(Dependency::Registry, "refused");
        dependencies.failing(Dependency::Registry, "timed out");
        let report = registry(&dependencies);
        assert_eq!((report.ok, report.failures, report.last_error.as_deref()), (Some(false), 2, Some("timed out")));
        assert!(report.failing_for_seconds.is_some());
        dependencies.ok(Dependency::Registry);
        let report = registry(&dependencies);
        assert_eq!((report.ok, report.failing_for_seconds), (Some(true), None));
        assert_eq!(report.last_error.as_deref(), Some("timed out"));
    }
}
