//! What the system knows of this process, as lines of `/metrics`. Linux only: elsewhere there are none.
//!
//! Written by hand, not through the recorder: its counters are whole numbers, and whole seconds of CPU time are too
//! coarse for a rate.

use std::fmt::Write as _;
use std::fs;

use super::catalogue::{
    PROCESS_CPU, PROCESS_FDS, PROCESS_MAX_FDS, PROCESS_RESIDENT, PROCESS_START, PROCESS_THREADS, PROCESS_VIRTUAL, spec,
};

/// The kernel counts time of processes in hundredths of a second on every Linux.
const CLOCK_TICKS: f64 = 100.0;

/// All that can be found out.
pub(super) fn render() -> String {
    let mut text = String::new();
    for (name, value) in measure() {
        let (Some(spec), Some(value)) = (spec(name), value) else { continue };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {}\n{name} {value}\n", spec.help, spec.kind.name());
    }
    text
}

fn measure() -> [(&'static str, Option<f64>); 7] {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    [
        (PROCESS_CPU, cpu_seconds(&stat)),
        (PROCESS_RESIDENT, kibibytes(&status, "VmRSS:")),
        (PROCESS_VIRTUAL, kibibytes(&status, "VmSize:")),
        (PROCESS_FDS, fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64)),
        (PROCESS_MAX_FDS, after(&limits, "Max open files")),
        (PROCESS_THREADS, after(&status, "Threads:")),
        (PROCESS_START, start_time(&stat)),
    ]
}

/// The number behind `name` at the start of a line.
fn after(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kibibytes(status: &str, name: &str) -> Option<f64> {
    after(status, name).map(|kibibytes| kibibytes * 1024.0)
}

/// The `number`th field of `stat`, counted from 1 as in proc(5). The second one, the name of the program, may contain
/// anything; the others start behind its closing bracket.
fn field(stat: &str, number: usize) -> Option<f64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / CLOCK_TICKS)
}

fn start_time(stat: &str) -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    Some(after(&system, "btime")? + field(stat, 22)? / CLOCK_TICKS)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn everything_about_this_very_process() {
        let measured: std::collections::BTreeMap<_, _> = measure().into_iter().collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let get = |name: &str| measured[name].unwrap_or_else(|| panic!("{name} is not known"));
        assert!((now - 3600.0..=now + 1.0).contains(&get(PROCESS_START)), "{measured:?}");
        assert!(get(PROCESS_CPU) >= 0.0 && get(PROCESS_CPU) < 3600.0);
        assert!(get(PROCESS_RESIDENT) > 1e5 && get(PROCESS_RESIDENT) < get(PROCESS_VIRTUAL));
        assert!(get(PROCESS_FDS) >= 3.0 && get(PROCESS_FDS) < get(PROCESS_MAX_FDS));
        assert!(get(PROCESS_THREADS) >= 1.0);
        assert!(render().contains("# TYPE process_cpu_seconds_total counter\n"), "{}", render());
    }

    #[test]
    fn the_name_of_the_program_may_contain_anything() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 4 0 12345 1 2";
        assert_eq!((cpu_seconds(stat), field(stat, 22)), (Some(3.0), Some(12345.0)));
    }
}
