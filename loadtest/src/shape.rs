//! The rate as a function of time, and when each event is due under it.

/// A stretch of time in which the rate goes in a straight line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// How long it lasts.
    pub seconds: f64,
    /// Events a second at its start.
    pub from: f64,
    /// Events a second at its end.
    pub to: f64,
}

/// A phase with its place in time and in the sequence of events.
#[derive(Debug, Clone, Copy)]
struct Placed {
    phase: Phase,
    starts_at: f64,
    /// Events due before it.
    events_before: f64,
}

/// Phases, one after another.
#[derive(Debug, Clone)]
pub struct RateCurve {
    placed: Vec<Placed>,
}

impl Phase {
    /// Events due in its first `seconds`.
    fn events_in(&self, seconds: f64) -> f64 {
        let growth = (self.to - self.from) / self.seconds;
        self.from * seconds + growth * seconds * seconds / 2.0
    }

    /// When, counted from its start, so many events are due.
    fn time_of(&self, events: f64) -> f64 {
        let growth = (self.to - self.from) / self.seconds;
        // The root of a quadratic in the form that does not cancel, and that holds for a growth of zero too.
        let root = (self.from * self.from + 2.0 * growth * events).max(0.0).sqrt();
        if events <= 0.0 || self.from + root <= 0.0 {
            return 0.0;
        }
        (2.0 * events / (self.from + root)).min(self.seconds)
    }
}

impl RateCurve {
    /// Lays the phases one behind the other; those without length are left out.
    pub fn new(phases: &[Phase]) -> Self {
        let mut placed: Vec<Placed> = Vec::with_capacity(phases.len());
        let (mut starts_at, mut events_before) = (0.0, 0.0);
        for phase in phases.iter().filter(|phase| phase.seconds > 0.0) {
            placed.push(Placed { phase: *phase, starts_at, events_before });
            starts_at += phase.seconds;
            events_before += phase.events_in(phase.seconds);
        }
        Self { placed }
    }

    /// A constant rate.
    pub fn constant(rate: f64, seconds: f64) -> Self {
        Self::new(&[Phase { seconds, from: rate, to: rate }])
    }

    /// How long all of it lasts.
    pub fn seconds(&self) -> f64 {
        self.placed.last().map_or(0.0, |last| last.starts_at + last.phase.seconds)
    }

    /// Events due in all of it.
    pub fn events(&self) -> u64 {
        let total =
            self.placed.last().map_or(0.0, |last| last.events_before + last.phase.events_in(last.phase.seconds));
        // A rounding error must not swallow the last event.
        (total + 1e-6).floor() as u64
    }

    /// Events a second at a time.
    pub fn rate_at(&self, seconds: f64) -> f64 {
        let Some(placed) = self.placed.iter().rfind(|placed| placed.starts_at <= seconds) else {
            return 0.0;
        };
        let inside = seconds - placed.starts_at;
        if inside > placed.phase.seconds {
            return 0.0;
        }
        placed.phase.from + (placed.phase.to - placed.phase.from) * inside / placed.phase.seconds
    }

    /// When event `number`, counted from 0, is due: seconds from the start. `phase` is a cursor that only goes forward.
    pub fn time_of(&self, number: u64, phase: &mut usize) -> f64 {
        let number = number as f64;
        while self.placed.get(*phase + 1).is_some_and(|next| next.events_before <= number) {
            *phase += 1;
        }
        let Some(placed) = self.placed.get(*phase) else {
            return 0.0;
        };
        placed.starts_at + placed.phase.time_of(number - placed.events_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(curve: &RateCurve) -> Vec<f64> {
        let mut cursor = 0;
        (0..curve.events()).map(|number| curve.time_of(number, &mut cursor)).collect()
    }

    #[test]
    fn a_constant_rate_is_evenly_spaced() {
        let curve = RateCurve::constant(10.0, 3.0);
        assert_eq!(curve.events(), 30);
        let times = times(&curve);
        assert!(times.iter().enumerate().all(|(number, time)| (time - number as f64 / 10.0).abs() < 1e-9), "{times:?}");
        assert!((curve.rate_at(1.0) - 10.0).abs() < 1e-9);
        assert!(curve.rate_at(3.1).abs() < 1e-9);
    }

    #[test]
    fn a_ramp_sends_its_area() {
        let curve = RateCurve::new(&[Phase { seconds: 10.0, from: 0.0, to: 100.0 }]);
        assert_eq!(curve.events(), 500);
        let times = times(&curve);
        // Half the time has a quarter of the events.
        assert_eq!(times.iter().filter(|time| **time < 5.0).count(), 125);
        assert!((curve.rate_at(5.0) - 50.0).abs() < 1e-9);
        let down = RateCurve::new(&[Phase { seconds: 10.0, from: 100.0, to: 0.0 }]);
        assert_eq!((0..down.events()).filter(|number| down.time_of(*number, &mut 0) < 5.0).count(), 375);
    }

    #[test]
    fn phases_follow_one_another_without_a_gap() {
        let curve = RateCurve::new(&[
            Phase { seconds: 2.0, from: 5.0, to: 5.0 },
            Phase { seconds: 0.0, from: 99.0, to: 99.0 },
            Phase { seconds: 1.0, from: 50.0, to: 50.0 },
            Phase { seconds: 3.0, from: 0.0, to: 0.0 },
            Phase { seconds: 2.0, from: 5.0, to: 15.0 },
        ]);
        assert_eq!(curve.events(), 10 + 50 + 20);
        assert!((curve.seconds() - 8.0).abs() < 1e-9);
        let times = times(&curve);
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
        assert_eq!(times.iter().filter(|time| (2.0..3.0).contains(*time)).count(), 50);
        // Nothing is due while the rate is zero.
        assert_eq!(times.iter().filter(|time| (3.0 + 1e-6..6.0 - 1e-6).contains(*time)).count(), 0);
        assert!(curve.rate_at(4.0).abs() < 1e-9 && (curve.rate_at(7.0) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn rates_far_below_one_and_far_above() {
        let slow = RateCurve::constant(0.5, 10.0);
        assert_eq!(times(&slow), [0.0, 2.0, 4.0, 6.0, 8.0]);
        let fast = RateCurve::constant(2_000_000.0, 600.0);
        assert_eq!(fast.events(), 1_200_000_000);
        assert!((fast.time_of(1_199_999_999, &mut 0) - 599.999_999_5).abs() < 1e-6);
    }
}
