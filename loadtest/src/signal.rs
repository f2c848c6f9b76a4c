//! What a sensor measures: a daily curve, slow drift and noise, and anomalies that are written down.

use std::f64::consts::TAU;

use crate::random::Dice;

/// Milliseconds of a day.
const DAY_MS: f64 = 86_400_000.0;

/// Readings of a sensor before it may have an anomaly, so that any detector has had its warm-up.
const CALM_AT_FIRST: u32 = 150;

/// Readings between two anomalies of a sensor, so that they can be told apart.
const CALM_BETWEEN: u32 = 250;

/// The kinds of anomaly that are put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
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

    /// How many readings it lasts.
    const fn readings(self) -> u32 {
        match self {
            Self::Spike => 1,
            Self::Drift => 60,
            Self::Flatline => 75,
        }
    }
}

/// An anomaly that was put in: what the flags are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The sensor.
    pub sensor_id: String,
    /// What was done.
    pub kind: AnomalyKind,
    /// Event time of the first reading concerned.
    pub first_ms: i64,
    /// Event time of the last reading concerned so far.
    pub last_ms: i64,
    /// Whether all of it was sent.
    pub complete: bool,
}

/// Level, swing and noise of a metric.
struct Profile {
    unit: &'static str,
    level: std::ops::Range<f64>,
    /// Half the distance from the coolest to the warmest hour.
    daily_swing: f64,
    /// Standard deviation of the noise.
    noise: f64,
    /// Step of the sensor's converter: a power of two, far below the noise, so that equal neighbours stay rare.
    step: f64,
}

/// In the order of [`crate::encode::METRICS`].
const PROFILES: [Profile; 6] = [
    Profile { unit: "Cel", level: 14.0..24.0, daily_swing: 4.0, noise: 0.2, step: 1.0 / 256.0 },
    Profile { unit: "%", level: 40.0..65.0, daily_swing: 8.0, noise: 0.8, step: 1.0 / 64.0 },
    Profile { unit: "hPa", level: 995.0..1_025.0, daily_swing: 1.5, noise: 0.25, step: 1.0 / 128.0 },
    Profile { unit: "mm/s", level: 6.0..9.0, daily_swing: 0.5, noise: 0.25, step: 1.0 / 256.0 },
    Profile { unit: "V", level: 228.0..232.0, daily_swing: 1.5, noise: 0.5, step: 1.0 / 128.0 },
    Profile { unit: "lx", level: 500.0..700.0, daily_swing: 90.0, noise: 6.0, step: 1.0 / 8.0 },
];

/// The unit of a metric.
pub fn unit_of(metric: u8) -> &'static str {
    PROFILES[metric as usize].unit
}

/// The values of one sensor.
#[derive(Debug, Clone)]
pub struct Signal {
    level: f64,
    daily_swing: f64,
    /// When of the day the curve passes its mean, as an angle.
    phase: f64,
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
    done: u32,
    /// How far away, in the signal's own unit; the sign is the direction.
    reach: f64,
    /// Index of its label.
    label: usize,
}

impl Signal {
    /// A sensor with its own level, phase and ageing.
    pub fn new(metric: u8, dice: &mut Dice) -> Self {
        let profile = &PROFILES[metric as usize];
        Self {
            level: dice.between(profile.level.start, profile.level.end),
            daily_swing: profile.daily_swing * dice.between(0.5, 1.2),
            phase: dice.between(0.0, TAU),
            drift_per_day: profile.noise * dice.between(-1.0, 1.0),
            noise: profile.noise * dice.between(0.7, 1.3),
            step: profile.step,
            calm: CALM_AT_FIRST,
            episode: None,
            last_value: 0.0,
        }
    }

    /// Whether an anomaly can begin, so that it will be told apart from others.
    pub fn is_calm(&self) -> bool {
        self.calm == 0 && self.episode.is_none()
    }

    /// Begins an anomaly with the next live reading; `label` is where it is written down.
    pub fn begin(&mut self, kind: AnomalyKind, label: usize, dice: &mut Dice) {
        let direction = if dice.unit() < 0.5 { 1.0 } else { -1.0 };
        let reach = direction * self.noise * dice.between(14.0, 24.0);
        self.episode = Some(Episode { kind, done: 0, reach, label });
    }

    /// A reading that is not part of the live sequence (a late one): the plain curve and noise.
    #[inline]
    pub fn plain(&self, time_ms: i64, dice: &mut Dice) -> f64 {
        let days = (time_ms as f64 / DAY_MS).fract();
        let curve = self.level + self.daily_swing * (TAU * days + self.phase).sin() + self.drift_per_day * days;
        self.quantised(curve + self.noise * dice.normal())
    }

    /// The next live reading, as part of an anomaly if there is one.
    #[inline]
    pub fn live(&mut self, time_ms: i64, dice: &mut Dice, labels: &mut [Label]) -> f64 {
        let plain = self.plain(time_ms, dice);
        let value = if self.episode.is_some() { self.disturbed(plain, time_ms, labels) } else { plain };
        self.calm = self.calm.saturating_sub(1);
        self.last_value = value;
        value
    }

    fn disturbed(&mut self, plain: f64, time_ms: i64, labels: &mut [Label]) -> f64 {
        let Some(mut episode) = self.episode.take() else {
            return plain;
        };
        episode.done += 1;
        let is_over = episode.done >= episode.kind.readings();
        if let Some(label) = labels.get_mut(episode.label) {
            if episode.done == 1 {
                label.first_ms = time_ms;
            }
            label.last_ms = time_ms;
            label.complete = is_over;
        }
        if is_over {
            self.calm = CALM_BETWEEN;
        } else {
            self.episode = Some(episode);
        }
        match episode.kind {
            AnomalyKind::Spike => self.quantised(plain + episode.reach),
            AnomalyKind::Drift => {
                let share = f64::from(episode.done) / f64::from(episode.kind.readings());
                self.quantised(plain + episode.reach * share)
            }
            AnomalyKind::Flatline => self.last_value,
        }
    }

    fn quantised(&self, value: f64) -> f64 {
        (value / self.step).round() * self.step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anomalies_are_labelled_from_their_first_to_their_last_reading() {
        for kind in AnomalyKind::ALL {
            let mut dice = Dice::new(3);
            let mut signal = Signal::new(0, &mut dice);
            let mut labels = vec![Label { sensor_id: "s".to_owned(), kind, first_ms: 0, last_ms: 0, complete: false }];
            let mut values = Vec::new();
            for at in 0..400 {
                if at == 200 {
                    assert!(signal.is_calm());
                    signal.begin(kind, 0, &mut dice);
                }
                values.push(signal.live(at, &mut dice, &mut labels));
            }
            let label = &labels[0];
            assert!(label.complete && !signal.is_calm(), "{label:?}");
            assert_eq!((label.first_ms, label.last_ms), (200, 199 + i64::from(kind.readings())));
            let inside = &values[label.first_ms as usize..=label.last_ms as usize];
            match kind {
                AnomalyKind::Spike => assert!((inside[0] - values[199]).abs() > 1.0),
                AnomalyKind::Drift => assert!((inside[59] - values[199]).abs() > 1.0),
                AnomalyKind::Flatline => assert!(inside.iter().all(|value| value.to_bits() == values[199].to_bits())),
            }
        }
    }
}
