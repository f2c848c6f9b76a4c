//! The open loop: what is due is sent, whatever became of what was sent before; and how far that was kept.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::shape::RateCurve;

/// The longest sleep between two looks at the clock: what is due comes in batches of at most this.
const TICK: Duration = Duration::from_millis(1);

/// The clock is looked at again after so many events of a batch.
const EVENTS_A_LOOK: u32 = 32;

/// The largest slip that is told apart, in microseconds.
const LARGEST_SLIP_US: u64 = 3_600_000_000;

/// Time since the start of the schedule.
pub trait Clock {
    /// How long ago the schedule started.
    fn elapsed(&self) -> Duration;
    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The real clock.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    start: Instant,
}

impl WallClock {
    /// A schedule that starts at `start`, which may lie ahead.
    pub fn starting_at(start: Instant) -> Self {
        Self { start }
    }
}

impl Clock for WallClock {
    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The load.
    Load,
    /// The dedicated series whose way is followed; with the number of the event.
    Canary(u64),
}

/// When everything is due: the load and the canaries, in the order of their times.
#[derive(Debug)]
pub struct Timetable {
    load: Due,
    canaries: Due,
}

/// One stream, and how far it is.
#[derive(Debug)]
struct Due {
    curve: RateCurve,
    phase: usize,
    done: u64,
    events: u64,
    next: Option<Duration>,
}

impl Due {
    fn new(curve: RateCurve) -> Self {
        let events = curve.events();
        let mut due = Self { curve, phase: 0, done: 0, events, next: None };
        due.find_next();
        due
    }

    fn find_next(&mut self) {
        self.next =
            (self.done < self.events).then(|| Duration::from_secs_f64(self.curve.time_of(self.done, &mut self.phase)));
    }

    fn take(&mut self) {
        self.done += 1;
        self.find_next();
    }
}

impl Timetable {
    /// `canary_rate` is that of all canaries together, a second.
    pub fn new(load: RateCurve, canary_rate: f64) -> Self {
        let canaries = RateCurve::constant(canary_rate, load.seconds());
        Self { load: Due::new(load), canaries: Due::new(canaries) }
    }

    /// What is due next, and when; `None` at the end.
    fn peek(&self) -> Option<(Duration, Stream)> {
        match (self.load.next, self.canaries.next) {
            (Some(load), Some(canary)) if canary < load => Some((canary, Stream::Canary(self.canaries.done))),
            (Some(load), _) => Some((load, Stream::Load)),
            (None, Some(canary)) => Some((canary, Stream::Canary(self.canaries.done))),
            (None, None) => None,
        }
    }

    fn take(&mut self, stream: Stream) {
        match stream {
            Stream::Load => self.load.take(),
            Stream::Canary(_) => self.canaries.take(),
        }
    }
}

/// How well the schedule was kept. An event that is sent later than `limit` after its time has slipped. What was due
/// during the warm-up is only counted as sent.
#[derive(Debug, Clone)]
pub struct Punctuality {
    warm_up: Duration,
    limit: Duration,
    /// Events sent.
    pub sent: u64,
    /// Of those due after the warm-up, slipped.
    pub slipped: u64,
    /// The largest delay.
    pub worst: Duration,
    /// Events that were due and were not sent, because the run was ended early.
    pub never_sent: u64,
    /// All delays, in microseconds.
    delays: Histogram<u64>,
}

impl Punctuality {
    /// Nothing sent yet.
    pub fn new(warm_up: Duration, limit: Duration) -> anyhow::Result<Self> {
        let delays = Histogram::new_with_bounds(1, LARGEST_SLIP_US, 2)?;
        Ok(Self { warm_up, limit, sent: 0, slipped: 0, worst: Duration::ZERO, never_sent: 0, delays })
    }

    /// An event was sent.
    pub fn sent(&mut self, due: Duration, at: Duration) {
        self.sent += 1;
        if due < self.warm_up {
            return;
        }
        let delay = at.saturating_sub(due);
        self.slipped += u64::from(delay > self.limit);
        self.worst = self.worst.max(delay);
        self.delays.saturating_record(delay.as_micros() as u64);
    }

    /// Share of the events that slipped.
    pub fn slipped_share(&self) -> f64 {
        self.slipped as f64 / self.delays.len().max(1) as f64
    }

    /// The delay that so many percent of the events stayed below.
    pub fn delay_at(&self, percent: f64) -> Duration {
        Duration::from_micros(self.delays.value_at_percentile(percent))
    }
}

/// What the loop calls.
pub trait Sink {
    /// Sends an event that was due at `due`, at the latest before the next call of [`Sink::between_batches`] returns. May
    /// block: what comes after it then slips, which is counted.
    fn send(&mut self, stream: Stream, due: Duration) -> anyhow::Result<()>;

    /// Called between batches; `true` ends the run early.
    fn between_batches(&mut self, punctuality: &Punctuality) -> anyhow::Result<bool>;
}

/// Sends everything on schedule.
pub fn run_open_loop(
    clock: &impl Clock,
    mut timetable: Timetable,
    mut punctuality: Punctuality,
    sink: &mut impl Sink,
) -> anyhow::Result<Punctuality> {
    let mut until_look = 0;
    let mut now = clock.elapsed();
    while let Some((due, stream)) = timetable.peek() {
        if until_look == 0 || due > now {
            now = clock.elapsed();
            until_look = EVENTS_A_LOOK;
        }
        if due > now {
            if sink.between_batches(&punctuality)? {
                punctuality.never_sent = timetable.load.events - timetable.load.done;
                return Ok(punctuality);
            }
            clock.sleep(due.saturating_sub(now).min(TICK));
            continue;
        }
        // Behind schedule there is never a pause between batches, and it must still be possible to end.
        if until_look == EVENTS_A_LOOK && now.saturating_sub(due) > TICK * 20 && sink.between_batches(&punctuality)? {
            punctuality.never_sent = timetable.load.events - timetable.load.done;
            return Ok(punctuality);
        }
        sink.send(stream, due)?;
        timetable.take(stream);
        until_look -= 1;
        punctuality.sent(due, now);
    }
    sink.between_batches(&punctuality)?;
    Ok(punctuality)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// A clock that stands still unless somebody sleeps or stalls.
    #[derive(Clone, Default)]
    struct FakeClock(Rc<Cell<Duration>>);

    impl FakeClock {
        fn advance(&self, time: Duration) {
            self.0.set(self.0.get() + time);
        }
    }

    impl Clock for FakeClock {
        fn elapsed(&self) -> Duration {
            self.0.get()
        }

        fn sleep(&self, time: Duration) {
            self.advance(time);
        }
    }

    struct FakeSink {
        clock: FakeClock,
        sent: Vec<(Stream, Duration, Duration)>,
        /// Blocks once, at that number of the load, for so long.
        stall: Option<(usize, Duration)>,
        stop_at: Duration,
    }

    impl FakeSink {
        fn new(clock: &FakeClock) -> Self {
            Self { clock: clock.clone(), sent: Vec::new(), stall: None, stop_at: Duration::MAX }
        }
    }

    impl Sink for FakeSink {
        fn send(&mut self, stream: Stream, due: Duration) -> anyhow::Result<()> {
            self.sent.push((stream, due, self.clock.elapsed()));
            if let Some((number, time)) = self.stall
                && self.sent.len() == number
            {
                self.clock.advance(time);
            }
            Ok(())
        }

        fn between_batches(&mut self, _: &Punctuality) -> anyhow::Result<bool> {
            Ok(self.clock.elapsed() >= self.stop_at)
        }
    }

    fn run(clock: &FakeClock, rate: f64, seconds: f64, canaries: f64, sink: &mut FakeSink) -> Punctuality {
        run_with_warm_up(Duration::ZERO, clock, rate, seconds, canaries, sink)
    }

    fn run_with_warm_up(
        warm_up: Duration,
        clock: &FakeClock,
        rate: f64,
        seconds: f64,
        canaries: f64,
        sink: &mut FakeSink,
    ) -> Punctuality {
        let timetable = Timetable::new(RateCurve::constant(rate, seconds), canaries);
        let punctuality = Punctuality::new(warm_up, Duration::from_millis(20)).unwrap();
        run_open_loop(clock, timetable, punctuality, sink).unwrap()
    }

    #[test]
    fn a_quick_sink_never_slips() {
        let clock = FakeClock::default();
        let mut sink = FakeSink::new(&clock);
        let punctuality = run(&clock, 1_000.0, 2.0, 0.0, &mut sink);
        assert_eq!((punctuality.sent, punctuality.slipped, punctuality.never_sent), (2_000, 0, 0));
        assert!(punctuality.worst <= TICK, "{:?}", punctuality.worst);
        assert!(clock.elapsed() >= Duration::from_millis(1_999));
    }

    #[test]
    fn a_stall_is_made_up_for_and_counted_from_the_intended_times() {
        let clock = FakeClock::default();
        let mut sink = FakeSink::new(&clock);
        sink.stall = Some((500, Duration::from_millis(300)));
        let punctuality = run(&clock, 1_000.0, 2.0, 0.0, &mut sink);
        // Nothing is left out; the 300 events of the stall are sent after it, those of its last 20 ms in time.
        assert_eq!(punctuality.sent, 2_000);
        assert!((270..=300).contains(&punctuality.slipped), "{}", punctuality.slipped);
        assert!((290..=301).contains(&punctuality.worst.as_millis()), "{:?}", punctuality.worst);
        assert!(punctuality.delay_at(99.9) > Duration::from_millis(250));
        assert!(punctuality.delay_at(50.0) <= 2 * TICK);
        // And their intended times do not move.
        assert_eq!(sink.sent[600].1, Duration::from_millis(600));
    }

    #[test]
    fn the_warm_up_is_sent_and_not_judged() {
        let clock = FakeClock::default();
        let mut sink = FakeSink::new(&clock);
        sink.stall = Some((500, Duration::from_millis(300)));
        let punctuality = run_with_warm_up(Duration::from_millis(700), &clock, 1_000.0, 2.0, 0.0, &mut sink);
        // Those of the last hundred milliseconds of the stall, but for its last 20 ms.
        assert_eq!(punctuality.sent, 2_000);
        assert!((70..=100).contains(&punctuality.slipped), "{}", punctuality.slipped);
        assert!((punctuality.slipped_share() - punctuality.slipped as f64 / 1_300.0).abs() < 1e-9);
    }

    #[test]
    fn canaries_are_merged_in_the_order_of_time() {
        let clock = FakeClock::default();
        let mut sink = FakeSink::new(&clock);
        run(&clock, 100.0, 1.0, 10.0, &mut sink);
        assert!(sink.sent.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        let canaries: Vec<_> = sink.sent.iter().filter(|(stream, ..)| *stream != Stream::Load).collect();
        assert_eq!(canaries.len(), 10);
        assert_eq!(canaries[9].0, Stream::Canary(9));
        assert_eq!(canaries[9].1, Duration::from_millis(900));
    }

    #[test]
    fn ended_early_says_what_was_not_sent() {
        let clock = FakeClock::default();
        let mut sink = FakeSink::new(&clock);
        sink.stop_at = Duration::from_millis(500);
        let punctuality = run(&clock, 1_000.0, 2.0, 0.0, &mut sink);
        assert_eq!(punctuality.sent + punctuality.never_sent, 2_000);
        assert!((1_490..=1_500).contains(&punctuality.never_sent), "{}", punctuality.never_sent);
    }
}
