//! How much memory this process may use at all.

/// The limit of the container, or what the machine has; `None` where the system does not tell.
pub(super) fn memory_limit() -> Option<u64> {
    let machine = read_kibibytes("/proc/meminfo", "MemTotal:");
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    // Without a limit the older interface tells a number beyond every machine.
    machine.into_iter().chain(container).min()
}

fn read_kibibytes(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}
