//! What processes use, as the kernel tells: CPU, memory and disk of each, network of the machine.
//!
//! Linux does not count network bytes by process, so those of the whole machine are shown, loopback apart.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

/// The kernel counts CPU time of processes in hundredths of a second on every Linux.
const CLOCK_TICKS: f64 = 100.0;

const MIB: f64 = 1024.0 * 1024.0;

/// What a process has used since its start, and its memory now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Usage {
    /// User and system time.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub rss_mib: f64,
    /// Read from the disk.
    pub disk_read_mib: f64,
    /// Written to the disk, sooner or later.
    pub disk_written_mib: f64,
}

/// Bytes received by the machine since its start; what is sent on the loopback is received there too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Network {
    /// On the loopback.
    pub loopback_mib: f64,
    /// On all other interfaces, received and sent.
    pub other_mib: f64,
}

/// The usage of all processes by name; those of one name are added up. One that is gone is left out.
pub fn usages(processes: &[(String, u32)]) -> BTreeMap<String, Usage> {
    let mut sum: BTreeMap<String, Usage> = BTreeMap::new();
    for (name, pid) in processes {
        let Some(usage) = usage_of(*pid) else {
            continue;
        };
        let entry = sum.entry(name.clone()).or_default();
        entry.cpu_seconds += usage.cpu_seconds;
        entry.rss_mib += usage.rss_mib;
        entry.disk_read_mib += usage.disk_read_mib;
        entry.disk_written_mib += usage.disk_written_mib;
    }
    sum
}

fn usage_of(pid: u32) -> Option<Usage> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let cpu_seconds = cpu_seconds(&read("stat")?)?;
    let rss_mib = field(&read("status")?, "VmRSS:")? / 1024.0;
    // Only for processes of the same user.
    let io = read("io").unwrap_or_default();
    let bytes = |name| field(&io, name).unwrap_or(0.0) / MIB;
    Some(Usage { cpu_seconds, rss_mib, disk_read_mib: bytes("read_bytes:"), disk_written_mib: bytes("write_bytes:") })
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name of the program may contain anything; the fields start behind its closing bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: Option<f64> = fields.get(11..13)?.iter().map(|ticks| ticks.parse::<f64>().ok()).sum();
    Some(ticks? / CLOCK_TICKS)
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The machine's network.
pub fn network() -> Network {
    fs::read_to_string("/proc/net/dev").map(|text| network_in(&text)).unwrap_or_default()
}

fn network_in(text: &str) -> Network {
    let mut network = Network::default();
    for line in text.lines() {
        let Some((name, counters)) = line.split_once(':') else {
            continue;
        };
        let counters: Vec<f64> = counters.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let (received, sent) = (counters.first().unwrap_or(&0.0), counters.get(8).unwrap_or(&0.0));
        if name.trim() == "lo" {
            network.loopback_mib += received / MIB;
        } else {
            network.other_mib += (received + sent) / MIB;
        }
    }
    network
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_is_measured() {
        let own = vec![("me".to_owned(), std::process::id()), ("nobody".to_owned(), u32::MAX)];
        let usages = usages(&own);
        assert_eq!(usages.keys().collect::<Vec<_>>(), ["me"]);
        assert!(usages["me"].rss_mib > 1.0 && usages["me"].rss_mib < 10_000.0, "{usages:?}");
    }

    #[test]
    fn names_with_brackets_do_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 100 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
    }

    #[test]
    fn the_loopback_is_counted_apart() {
        let text = "Inter-| Receive | Transmit\n face |bytes packets\n    lo: 1048576 1 0 0 0 0 0 0 1048576 1 0 0 0 0 0 0\n\
            eth0: 2097152 1 0 0 0 0 0 0 1048576 1 0 0 0 0 0 0\n";
        assert_eq!(network_in(text), Network { loopback_mib: 1.0, other_mib: 3.0 });
    }
}
