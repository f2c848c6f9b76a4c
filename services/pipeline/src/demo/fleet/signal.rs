//! What a series measures: a daily curve, slow drift and noise, and now and then an anomaly that is written down.

use std::f64::consts::TAU;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::reading::Metric;

/// Milliseconds of a day.
const DAY_MS: f64 = 86_400_000.0;

/// Readings of a series before its first anomaly, so that any detector has had its warm-up.
const CALM_AT_FIRST: u32 = 120;

/// Readings between two anomalies of a series, so that they can be told apart.
const CALM_BETWEEN: u32 = 200;

/// One anomaly in so many readings of a series that may have one.
const READINGS_PER_ANOMALY: u32 = 4_000;

/// The kinds of anomaly that the fleet puts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AnomalyKind {
    /// One reading far away from the others.
    Spike,
    /// The level runs away, reading by reading, and comes back at once.
    Drift,
    /// The sensor repeats itself.
    Flatline,
}

impl AnomalyKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Spike, Self::Drift, Self::Flatline];

    /// The name, as the pipeline writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spike => "spike",
            Self::Drift => "drift",
            Self::Flatline => "flatline",
        }
    }

    const fn readings(self) -> u32 {
        match self {
            Self::Spike => 1,
            Self::Drift => 60,
            Self::Flatline => 75,
        }
    }
}

/// An anomaly that was put in: the label to hold a detector against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InjectedAnomaly {
    /// Index of the series.
    pub series: u32,
    /// What was done.
    pub kind: AnomalyKind,
    /// Event time of the first reading concerned.
    pub first_ms: i64,
    /// Event time of the last reading concerned so far.
    pub last_ms: i64,
}

/// Level, swing and noise of a kind of measurement.
struct Profile {
    unit: &'static str,
    /// The level of a series lies in here.
    level: std::ops::Range<f64>,
    /// Half the distance from the coolest to the warmest hour.
    daily_swing: f64,
    /// Standard deviation of the noise.
    noise: f64,
    /// Step of the sensor's converter. A power of two, as in real ones; far below the noise, so that equal
    /// neighbours stay rare.
    step: f64,
}

fn profile(metric: Metric) -> Profile {
    match metric {
        Metric::Temperature => {
            Profile { unit: "Cel", level: 14.0..24.0, daily_swing: 4.0, noise: 0.2, step: 1.0 / 256.0 }
        }
        Metric::Humidity => Profile { unit: "%", level: 40.0..65.0, daily_swing: 8.0, noise: 0.8, step: 1.0 / 64.0 },
        Metric::Pressure => {
            Profile { unit: "hPa", level: 995.0..1_025.0, daily_swing: 1.5, noise: 0.25, step: 1.0 / 128.0 }
        }
        Metric::Vibration => {
            Profile { unit: "mm/s", level: 6.0..9.0, daily_swing: 0.5, noise: 0.25, step: 1.0 / 256.0 }
        }
        Metric::Voltage => Profile { unit: "V", level: 228.0..232.0, daily_swing: 1.5, noise: 0.5, step: 1.0 / 128.0 },
        Metric::Other => Profile { unit: "lx", level: 500.0..700.0, daily_swing: 90.0, noise: 6.0, step: 1.0 / 8.0 },
    }
}

/// A series: one metric of one sensor.
#[derive(Debug, Clone)]
pub struct Signal {
    /// What is measured.
    pub metric: Metric,
    /// In which unit.
    pub unit: &'static str,
    level: f64,
    daily_swing: f64,
    /// When of the day the curve passes its mean, as an angle.
    phase: f64,
    /// Of the sensor's ageing, per day.
    drift_per_day: f64,
    noise: f64,
    step: f64,
    /// Readings until an anomaly may begin.
    calm: u32,
    episode: Option<Episode>,
    last_value: f64,
}

/// An anomaly in progress.
#[derive(Debug, Clone, Copy)]
struct Episode {
    kind: AnomalyKind,
    /// Readings done.
    done: u32,
    /// How far away, in the series' own unit; the sign is the direction.
    reach: f64,
    /// Index of its label.
    label: usize,
}

impl Signal {
    /// A series with its own level, phase and ageing.
    pub(super) fn new(metric: Metric, site_phase: f64, random: &mut StdRng) -> Self {
        let Profile { unit, level, daily_swing, noise, step } = profile(metric);
        Self {
            metric,
            unit,
            level: random.random_range(level),
            daily_swing: daily_swing * random.random_range(0.5..1.2),
            phase: site_phase + random.random_range(-0.2..0.2),
            drift_per_day: noise * random.random_range(-1.0..1.0),
            noise: noise * random.random_range(0.7..1.3),
            step,
            calm: CALM_AT_FIRST,
            episode: None,
            last_value: 0.0,
        }
    }

    /// The reading of an event that is not part of the live sequence (a late one): the plain curve and noise.
    pub(super) fn plain(&self, event_time_ms: i64, random: &mut StdRng) -> f64 {
        self.quantised(self.curve(event_time_ms) + self.noise * gaussian(random))
    }

    /// The next live reading; begins, continues and ends anomalies, whose labels go to `labels`.
    pub(super) fn live(
        &mut self,
        series: u32,
        event_time_ms: i64,
        random: &mut StdRng,
        labels: &mut Vec<InjectedAnomaly>,
    ) -> f64 {
        let plain = self.plain(event_time_ms, random);
        if self.episode.is_none() && self.calm == 0 && random.random_ratio(1, READINGS_PER_ANOMALY) {
            self.begin_episode(series, event_time_ms, random, labels);
        }
        self.calm = self.calm.saturating_sub(1);
        let Some(mut episode) = self.episode.take() else {
            self.last_value = plain;
            return plain;
        };
        episode.done += 1;
        let value = match episode.kind {
            AnomalyKind::Spike => self.quantised(plain + episode.reach),
            AnomalyKind::Drift => {
                let share = f64::from(episode.done) / f64::from(episode.kind.readings());
                self.quantised(plain + episode.reach * share)
            }
            AnomalyKind::Flatline => self.last_value,
        };
        if let Some(label) = labels.get_mut(episode.label) {
            label.last_ms = event_time_ms;
        }
        if episode.done < episode.kind.readings() {
            self.episode = Some(episode);
        } else {
            self.calm = CALM_BETWEEN;
        }
        self.last_value = value;
        value
    }

    fn begin_episode(
        &mut self,
        series: u32,
        event_time_ms: i64,
        random: &mut StdRng,
        labels: &mut Vec<InjectedAnomaly>,
    ) {
        let kind = AnomalyKind::ALL[random.random_range(0..AnomalyKind::ALL.len())];
        let direction = if random.random_bool(0.5) { 1.0 } else { -1.0 };
        let reach = direction * self.noise * random.random_range(14.0..24.0);
        self.episode = Some(Episode { kind, done: 0, reach, label: labels.len() });
        labels.push(InjectedAnomaly { series, kind, first_ms: event_time_ms, last_ms: event_time_ms });
    }

    fn curve(&self, event_time_ms: i64) -> f64 {
        let days = event_time_ms as f64 / DAY_MS;
        let ageing = self.drift_per_day * days.fract();
        self.level + self.daily_swing * (TAU * days.fract() + self.phase).sin() + ageing
    }

    fn quantised(&self, value: f64) -> f64 {
        (value / self.step).round() * self.step
    }
}

/// A draw from the normal distribution (Box and Muller).
fn gaussian(random: &mut StdRng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (TAU * random.random::<f64>()).cos()
}

/// A generator of its own for each part of the fleet.
pub(super) fn seeded(seed: u64, part: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_spread_it_should() {
        let mut random = seeded(1, 2);
        let draws: Vec<f64> = (0..20_000).map(|_| gaussian(&mut random)).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn anomalies_are_labelled_from_their_first_to_their_last_reading() {
        let mut random = seeded(3, 4);
        let mut signal = Signal::new(Metric::Temperature, 0.0, &mut random);
        let mut labels = Vec::new();
        let values: Vec<f64> = (0..200_000).map(|at| signal.live(9, at, &mut random, &mut labels)).collect();
        assert!(labels.len() > 15, "{}", labels.len());
        for label in &labels[..labels.len() - 1] {
            assert_eq!(label.series, 9);
            assert_eq!(label.last_ms - label.first_ms + 1, i64::from(label.kind.readings()));
            let inside = &values[label.first_ms as usize..=label.last_ms as usize];
            let before = values[label.first_ms as usize - 1];
            match label.kind {
                AnomalyKind::Spike => assert!((inside[0] - before).abs() > 1.0),
                AnomalyKind::Drift => assert!((inside[59] - before).abs() > 1.0),
                AnomalyKind::Flatline => assert!(inside.iter().all(|value| value.to_bits() == before.to_bits())),
            }
        }
    }
}
