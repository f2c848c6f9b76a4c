//! Anomaly flags: one detector per series, constant memory, a few nanoseconds an event.
//!
//! A detector sees the events of one series in log order and says of each how unlikely it is. It must be a pure
//! function of what it has seen: its [`AnomalyDetector::Memory`] goes into the snapshot, and a replay flags the same
//! events again.

mod robust;
mod tail;

pub use robust::{Robust, RobustMemory};

use crate::snapshot::{SnapshotError, SnapshotReader, SnapshotWriter};

/// What kind of anomaly an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnomalyKind {
    /// The value, and its step from the one before, are far outside what the series does.
    Spike,
    /// The level has moved away slowly, event by event in the same direction.
    Drift,
    /// A series that used to change has repeated the same value for long.
    Flatline,
}

impl AnomalyKind {
    /// The stable name in the hot store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spike => "spike",
            Self::Drift => "drift",
            Self::Flatline => "flatline",
        }
    }
}

/// What a detector says of one event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Distance from the expectation in robust standard deviations. See [`score_of`] for the score.
    pub distance: f64,
    /// The value that would have been usual.
    pub expected: f64,
    /// The flag, if the event is one.
    pub kind: Option<AnomalyKind>,
}

impl Verdict {
    /// An event of which nothing can be said, during warm-up for one.
    pub const USUAL: Self = Self { distance: 0.0, expected: 0.0, kind: None };
}

/// Minus the decimal logarithm of the two-sided Gaussian tail probability of a distance.
pub fn score_of(distance: f64) -> f64 {
    tail::score_of(distance)
}

/// A way to tell unusual events of a series.
pub trait AnomalyDetector {
    /// What is kept per series.
    type Memory: Default + Clone + std::fmt::Debug;

    /// Looks at the next event of a series, in log order; event times may go back.
    fn observe(&self, memory: &mut Self::Memory, event_time_ms: i64, value: f64) -> Verdict;

    /// Writes a series' memory into a snapshot.
    fn save(memory: &Self::Memory, into: &mut SnapshotWriter);

    /// Reads it back.
    fn load(from: &mut SnapshotReader<'_>) -> Result<Self::Memory, SnapshotError>;
}

/// The detector that the configuration chose. A fork with its own detector adds a variant.
#[derive(Debug, Clone)]
pub enum ConfiguredDetector {
    /// Flags nothing.
    Off,
    /// The default.
    Robust(Robust),
}

impl AnomalyDetector for ConfiguredDetector {
    type Memory = RobustMemory;

    #[inline]
    fn observe(&self, memory: &mut Self::Memory, event_time_ms: i64, value: f64) -> Verdict {
        match self {
            Self::Off => Verdict::USUAL,
            Self::Robust(robust) => robust.observe(memory, event_time_ms, value),
        }
    }

    fn save(memory: &Self::Memory, into: &mut SnapshotWriter) {
        Robust::save(memory, into);
    }

    fn load(from: &mut SnapshotReader<'_>) -> Result<Self::Memory, SnapshotError> {
        Robust::load(from)
    }
}
