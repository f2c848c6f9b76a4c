//! When each record is due: an open loop, which does not wait for what it loads.

use std::time::Duration;

/// How far the producer may fall behind before the schedule is moved. What was due in between is not made up for: a
/// burst of everything missed would be another load than the one asked for.
const LARGEST_SLIP: Duration = Duration::from_secs(2);

/// A constant rate.
#[derive(Debug, Clone)]
pub struct Schedule {
    rate: f64,
    /// Elapsed time at which record 0 was due; moved when the producer has fallen too far behind.
    origin: Duration,
    /// Records done since `origin`.
    done: u64,
    /// Records that were due and are given up.
    given_up: u64,
    /// The largest slip seen.
    largest_slip: Duration,
}

impl Schedule {
    /// `rate` records a second.
    pub fn new(rate: u32) -> Self {
        Self { rate: f64::from(rate), origin: Duration::ZERO, done: 0, given_up: 0, largest_slip: Duration::ZERO }
    }

    /// How many records are due at `elapsed` and not done yet.
    pub fn due(&mut self, elapsed: Duration) -> u64 {
        let slip = self.slip(elapsed);
        self.largest_slip = self.largest_slip.max(slip);
        if slip > LARGEST_SLIP {
            let missed = (slip.saturating_sub(LARGEST_SLIP).as_secs_f64() * self.rate) as u64;
            self.given_up += missed;
            self.origin += Duration::from_secs_f64(missed as f64 / self.rate);
        }
        let due = (elapsed.saturating_sub(self.origin).as_secs_f64() * self.rate) as u64;
        due.saturating_sub(self.done)
    }

    /// Takes the next record: when it was due.
    pub fn take(&mut self) -> Duration {
        let due_at = self.next_due_at();
        self.done += 1;
        due_at
    }

    /// When the next record is due.
    pub fn next_due_at(&self) -> Duration {
        self.origin + Duration::from_secs_f64(self.done as f64 / self.rate)
    }

    /// How late the next record is.
    pub fn slip(&self, elapsed: Duration) -> Duration {
        elapsed.saturating_sub(self.next_due_at())
    }

    /// The largest slip so far.
    pub fn largest_slip(&self) -> Duration {
        self.largest_slip
    }

    /// Records that were due and have been given up.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_at_the_rate() {
        let mut schedule = Schedule::new(1_000);
        assert_eq!(schedule.due(Duration::ZERO), 0);
        assert_eq!(schedule.due(Duration::from_millis(100)), 100);
        let due_at: Vec<_> = (0..100).map(|_| schedule.take()).collect();
        assert_eq!(due_at[0], Duration::ZERO);
        assert_eq!(due_at[99], Duration::from_millis(99));
        assert_eq!(schedule.due(Duration::from_millis(100)), 0);
        assert_eq!(schedule.next_due_at(), Duration::from_millis(100));
    }

    #[test]
    fn a_short_slip_is_made_up_for_and_a_long_one_is_not() {
        let mut schedule = Schedule::new(100);
        assert_eq!(schedule.due(Duration::from_secs(1)), 100);
        assert_eq!(schedule.given_up(), 0);
        assert_eq!(schedule.due(Duration::from_secs(5)), 200);
        assert_eq!(schedule.given_up(), 300);
        assert_eq!(schedule.largest_slip(), Duration::from_secs(5));
        assert_eq!(schedule.take(), Duration::from_secs(3));
    }
}
