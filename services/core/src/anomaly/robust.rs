//! The default detector: robust running location and scale of the value and of its step.
//!
//! * **Location and scale** are exponential averages of the value and of its absolute deviation, moved by clipped
//!   innovations (Huber 1964), so that the anomalies themselves hardly move them.
//! * A **spike** is far away both by its level and by its step. A daily cycle moves the level, but in small steps; a
//!   sensor that comes back from a spike makes a large step, but to its usual level. Neither is flagged.
//! * A **drift** is a run of deviations to one side: a two-sided CUSUM (Page 1954) of the clipped distance from a slow
//!   level, in units of the usual distance from it, so that a daily cycle, which the slow level always lags a little, is
//!   usual. Both go by time, not by events: for a sensor that reports each second as for one that reports each minute.
//! * A **flatline** is a long run of one value in a series that used to change.
//!
//! After a flag the series is quiet for a while (refractory period): one incident, one flag.

use super::{AnomalyDetector, AnomalyKind, Verdict, tail};
use crate::snapshot::{SnapshotError, SnapshotReader, SnapshotWriter};

/// Weight of a new value in the fast level and the scales: the memory is about 32 events.
const FAST: f64 = 1.0 / 32.0;
/// Time constant of the slow level, against which drift is measured, in seconds.
const SLOW_SECONDS: f64 = 256.0;
/// Time constant of the usual distance from the slow level, in seconds.
const SLOW_SPREAD_SECONDS: f64 = 8.0 * SLOW_SECONDS;
/// Nothing is learnt from a value that was repeated more often than this: else a stuck sensor would shrink its own
/// scales, and its first movement afterwards would look like a spike.
const STUCK: u32 = 4;
/// Innovations are clipped at so many standard deviations.
const CLIP: f64 = 3.0;
/// Mean absolute deviation to standard deviation, for a Gaussian: sqrt(pi / 2).
const DEVIATION_TO_SIGMA: f64 = 1.253_314_137_315_500_3;
/// Events before which nothing is clipped: the first few may lie close together by chance.
const SETTLING: u32 = 16;
/// Drift: deviations below this many standard deviations do not count (CUSUM's `k`).
const DRIFT_SLACK: f64 = 1.5;
/// Drift: the sum that raises the flag (CUSUM's `h`).
const DRIFT_LIMIT: f64 = 40.0;
/// A series counts as changing if at least this share of its recent steps were not zero.
const CHANGING: f64 = 0.25;

/// Settings of the detector.
#[derive(Debug, Clone)]
pub struct Robust {
    warm_up: u32,
    refractory: u32,
    flatline_after: u32,
    /// Spike threshold in robust standard deviations, from the score threshold.
    spike_distance: f64,
}

/// What is known of one series: 104 bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RobustMemory {
    seen: u32,
    /// Events for which the series stays quiet after a flag.
    quiet: u32,
    /// Length of the current run of one value.
    same: u32,
    last_time_ms: i64,
    last_value: f64,
    level: f64,
    /// Mean absolute deviation of the value from `level`.
    spread: f64,
    /// Mean absolute step between neighbouring values.
    step_spread: f64,
    slow_level: f64,
    /// Mean absolute deviation from `slow_level`.
    slow_spread: f64,
    /// Event time that the slow averages have seen.
    elapsed_seconds: f64,
    /// CUSUM sums: upwards and downwards.
    drift_up: f64,
    drift_down: f64,
    /// Running share of steps that were not zero.
    changing: f64,
}

impl Robust {
    /// `threshold` is the score from which an event is a spike: minus the decimal logarithm of its tail probability.
    /// `warm_up`, `refractory` and `flatline_after` count events of the series.
    pub fn new(warm_up: u32, refractory: u32, threshold: f64, flatline_after: u32) -> Self {
        Self { warm_up, refractory, flatline_after, spike_distance: tail::distance_of(threshold) }
    }

    fn kind_of(&self, memory: &RobustMemory, distance: f64) -> Option<AnomalyKind> {
        if memory.seen <= self.warm_up || memory.quiet > 0 {
            return None;
        }
        if distance >= self.spike_distance {
            return Some(AnomalyKind::Spike);
        }
        if memory.drift_up.max(memory.drift_down) >= DRIFT_LIMIT {
            return Some(AnomalyKind::Drift);
        }
        if memory.same == self.flatline_after && memory.changing >= CHANGING {
            return Some(AnomalyKind::Flatline);
        }
        None
    }
}

impl RobustMemory {
    fn first(event_time_ms: i64, value: f64) -> Self {
        Self {
            seen: 1,
            last_time_ms: event_time_ms,
            last_value: value,
            level: value,
            slow_level: value,
            ..Self::default()
        }
    }

    /// Distance by level and by step, whichever is smaller, in robust standard deviations.
    #[inline]
    fn distance(&self, value: f64) -> f64 {
        let by_level = distance_in(difference(value, self.level), self.spread);
        let by_step = distance_in(difference(value, self.last_value), self.step_spread);
        by_level.min(by_step)
    }

    #[inline]
    fn learn(&mut self, seconds: f64, value: f64) {
        let step = difference(value, self.last_value);
        self.last_value = value;
        self.seen = self.seen.saturating_add(1);
        self.same = if step == 0.0 { self.same.saturating_add(1) } else { 0 };
        if self.same > STUCK {
            self.drift_up = 0.0;
            self.drift_down = 0.0;
            return;
        }
        self.follow_slowly(seconds, value);
        let weight = FAST.max(self.weight_of_first());
        self.changing += weight * (f64::from(u8::from(step != 0.0)) - self.changing);
        self.step_spread += weight * (self.clip(step.abs(), self.step_spread) - self.step_spread);
        let deviation = difference(value, self.level);
        self.level += weight * self.clip(deviation, self.spread);
        self.spread += weight * (self.clip(deviation.abs(), self.spread) - self.spread);
    }

    /// Adds the distance from the slow level to the CUSUM sums, then moves the level.
    #[inline]
    fn follow_slowly(&mut self, seconds: f64, value: f64) {
        let deviation = difference(value, self.slow_level);
        let distance = signed_distance_in(deviation, self.slow_spread).clamp(-CLIP, CLIP);
        self.drift_up = (self.drift_up + distance - DRIFT_SLACK).max(0.0);
        self.drift_down = (self.drift_down - distance - DRIFT_SLACK).max(0.0);
        self.slow_level += self.slow_weight(seconds, SLOW_SECONDS) * self.clip(deviation, self.slow_spread);
        let usual = self.clip(deviation.abs(), self.slow_spread);
        self.slow_spread += self.slow_weight(seconds, SLOW_SPREAD_SECONDS) * (usual - self.slow_spread);
        self.elapsed_seconds += seconds;
    }

    /// A plain average over the time so far, until that is longer than the time constant.
    #[inline]
    fn slow_weight(&self, seconds: f64, time_constant: f64) -> f64 {
        seconds / (self.elapsed_seconds.min(time_constant) + seconds).max(1e-3)
    }

    /// A deviation, cut at some times its usual size; not while the scales are still being found.
    #[inline]
    fn clip(&self, deviation: f64, spread: f64) -> f64 {
        if self.seen < SETTLING || spread <= 0.0 {
            return deviation;
        }
        let largest = CLIP * DEVIATION_TO_SIGMA * spread;
        // Not `clamp`, which panics where a bound is no number: no state that can be read may do that.
        deviation.max(-largest).min(largest)
    }

    /// Early values weigh more, so that the averages do not start at the first value and stay there.
    #[inline]
    fn weight_of_first(&self) -> f64 {
        if self.seen >= 64 { 0.0 } else { 1.0 / f64::from(self.seen) }
    }
}

/// Of two finite values, which may be further apart than any number: an infinite one would make the averages no numbers.
#[inline]
fn difference(value: f64, from: f64) -> f64 {
    (value - from).clamp(f64::MIN, f64::MAX)
}

/// `deviation` in standard deviations of a scale; infinite distances are capped so that scores stay finite.
#[inline]
fn distance_in(deviation: f64, spread: f64) -> f64 {
    signed_distance_in(deviation, spread).abs()
}

#[inline]
fn signed_distance_in(deviation: f64, spread: f64) -> f64 {
    if spread <= 0.0 {
        // A series that never changed: there is no scale by which its first change could be judged.
        return 0.0;
    }
    (deviation / (DEVIATION_TO_SIGMA * spread)).clamp(-1e3, 1e3)
}

impl AnomalyDetector for Robust {
    type Memory = RobustMemory;

    #[inline]
    fn observe(&self, memory: &mut RobustMemory, event_time_ms: i64, value: f64) -> Verdict {
        if memory.seen == 0 {
            *memory = RobustMemory::first(event_time_ms, value);
            return Verdict::USUAL;
        }
        let distance = memory.distance(value);
        let expected = memory.level;
        if event_time_ms < memory.last_time_ms {
            // Out of order: its step is not a step of the series, so nothing is learnt from it.
            return Verdict { distance: 0.0, expected, kind: None };
        }
        let seconds = event_time_ms.saturating_sub(memory.last_time_ms) as f64 / 1e3;
        memory.last_time_ms = event_time_ms;
        memory.learn(seconds, value);
        let kind = self.kind_of(memory, distance);
        memory.quiet = memory.quiet.saturating_sub(1);
        if kind.is_some() {
            memory.quiet = self.refractory;
            memory.drift_up = 0.0;
            memory.drift_down = 0.0;
        }
        let judged = if memory.seen <= self.warm_up { 0.0 } else { distance };
        Verdict { distance: judged, expected, kind }
    }

    fn save(memory: &RobustMemory, into: &mut SnapshotWriter) {
        into.u32(memory.seen);
        into.u32(memory.quiet);
        into.u32(memory.same);
        into.i64(memory.last_time_ms);
        for number in [
            memory.last_value,
            memory.level,
            memory.spread,
            memory.step_spread,
            memory.slow_level,
            memory.slow_spread,
            memory.elapsed_seconds,
            memory.drift_up,
            memory.drift_down,
            memory.changing,
        ] {
            into.f64(number);
        }
    }

    fn load(from: &mut SnapshotReader<'_>) -> Result<RobustMemory, SnapshotError> {
        Ok(RobustMemory {
            seen: from.u32()?,
            quiet: from.u32()?,
            same: from.u32()?,
            last_time_ms: from.i64()?,
            last_value: from.f64()?,
            level: from.f64()?,
            spread: from.f64()?,
            step_spread: from.f64()?,
            slow_level: from.f64()?,
            slow_spread: from.f64()?,
            elapsed_seconds: from.f64()?,
            drift_up: from.f64()?,
            drift_down: from.f64()?,
            changing: from.f64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deterministic noise that is roughly Gaussian: the sum of twelve uniform numbers, less six.
    struct Noise(u64);

    impl Noise {
        fn next(&mut self) -> f64 {
            let mut sum = -6.0;
            for _ in 0..12 {
                self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                sum += (self.0 >> 11) as f64 / (1_u64 << 53) as f64;
            }
            sum
        }
    }

    fn detector() -> Robust {
        Robust::new(30, 60, 8.0, 30)
    }

    /// A daily cycle of one reading a second, with noise.
    fn reading(second: u32, noise: &mut Noise) -> f64 {
        20.0 + 5.0 * (f64::from(second) * std::f64::consts::TAU / 86_400.0).sin() + 0.1 * noise.next()
    }

    fn flags(values: impl IntoIterator<Item = f64>) -> Vec<(usize, AnomalyKind)> {
        let (detector, mut memory) = (detector(), RobustMemory::default());
        let verdicts = values
            .into_iter()
            .enumerate()
            .map(|(second, value)| (second, detector.observe(&mut memory, second as i64 * 1_000, value).kind));
        verdicts.filter_map(|(second, kind)| kind.map(|kind| (second, kind))).collect()
    }

    /// Values that are valid events, further apart than the largest number.
    #[test]
    fn the_largest_values_that_there_are() {
        for values in [[f64::MAX, f64::MIN], [f64::MIN, 0.0], [1e308, -1e308], [f64::MAX, f64::MAX]] {
            let (detector, mut memory) = (detector(), RobustMemory::default());
            for event in 0..500_usize {
                let verdict = detector.observe(&mut memory, event as i64 * 1_000, values[event % 2]);
                assert!(
                    verdict.distance.is_finite() && verdict.expected.is_finite(),
                    "{values:?} at {event}: {verdict:?}"
                );
            }
            // The series is judged again once it is usual again.
            let mut noise = Noise(3);
            for event in 500..40_000_usize {
                let verdict = detector.observe(&mut memory, event as i64 * 1_000, 20.0 + noise.next());
                assert!(
                    verdict.distance.is_finite() && verdict.expected.is_finite(),
                    "{values:?} at {event}: {verdict:?}"
                );
            }
            let spike = detector.observe(&mut memory, 40_000_000, 1e6);
            assert_eq!(spike.kind, Some(AnomalyKind::Spike), "{values:?}: {spike:?}, {memory:?}");
        }
    }

    #[test]
    fn a_usual_day_raises_no_flag() {
        let mut noise = Noise(1);
        assert_eq!(flags((0..86_400).map(|second| reading(second, &mut noise))), []);
    }

    #[test]
    fn a_usual_week_of_one_reading_a_minute_raises_no_flag() {
        let (detector, mut memory, mut noise) = (detector(), RobustMemory::default(), Noise(5));
        for minute in 0..7 * 1_440_u32 {
            let value = reading(minute * 60, &mut noise);
            let verdict = detector.observe(&mut memory, i64::from(minute) * 60_000, value);
            assert_eq!(verdict.kind, None, "minute {minute}");
        }
    }

    #[test]
    fn a_spike_is_flagged_once_and_its_return_is_not() {
        let mut noise = Noise(2);
        let values = (0..2_000).map(|second| reading(second, &mut noise) + if second == 1_000 { 3.0 } else { 0.0 });
        assert_eq!(flags(values), [(1_000, AnomalyKind::Spike)]);
    }

    #[test]
    fn a_slow_drift_is_flagged() {
        let mut noise = Noise(3);
        let values =
            (0..2_000).map(|second| reading(second, &mut noise) + (f64::from(second) - 1_000.0).max(0.0) * 0.01);
        let flags = flags(values);
        let first = flags.first().expect("the drift is flagged");
        assert_eq!(first.1, AnomalyKind::Drift);
        assert!((1_000..1_200).contains(&first.0), "{flags:?}");
    }

    #[test]
    fn a_stuck_sensor_is_flagged_and_a_constant_one_is_not() {
        let mut noise = Noise(4);
        let mut stuck = (0..500).map(|second| reading(second, &mut noise)).collect::<Vec<_>>();
        let held = stuck[499];
        stuck.extend(std::iter::repeat_n(held, 200));
        assert_eq!(flags(stuck), [(529, AnomalyKind::Flatline)]);
        assert_eq!(flags(std::iter::repeat_n(7.0, 2_000)), []);
    }

    #[test]
    fn out_of_order_events_teach_nothing() {
        let (detector, mut memory) = (detector(), RobustMemory::default());
        detector.observe(&mut memory, 1_000, 1.0);
        detector.observe(&mut memory, 2_000, 2.0);
        let before = memory.clone();
        let verdict = detector.observe(&mut memory, 1_500, 900.0);
        assert_eq!(verdict.kind, None);
        assert_eq!(memory, before);
    }
}
