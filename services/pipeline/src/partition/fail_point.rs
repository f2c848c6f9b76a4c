//! Places between the steps of the protocol where a test makes the process die or stand still.
//!
//! Built with the feature `fail-points`, a process obeys `KAPPA_FAIL_POINT=<place>:<n>:<signal>`: when it comes to the place
//! for the n-th time it sends itself that signal, `KILL` or `STOP`. Without the feature there is nothing but the names.

/// Between which steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailPoint {
    /// It is settled where a new partition begins.
    StartSettled,
    /// The empty snapshot at the start is there, no offset is committed.
    FirstSnapshot,
    /// The start is committed.
    FirstCommit,
    /// State is restored and the log positioned.
    Restored,
    /// A segment of another owner was found, and will be replayed to its end.
    Adopting,
    /// A segment is cut, nothing of it written.
    Cut,
    /// Step 1 is done.
    Archived,
    /// Step 2 is done.
    DeadLettersWritten,
    /// Step 3 is done.
    RowsWritten,
    /// Step 4 is done.
    SnapshotWritten,
    /// Step 5 is done.
    Committed,
    /// Old snapshots are deleted.
    Pruned,
    /// The intent of a redrive's batch is written, nothing of it sent.
    RedriveIntended,
    /// The batch is sent, its transaction not committed.
    RedriveProduced,
    /// The transaction is committed, the outcome not written.
    RedriveCommitted,
}

/// Dies or stands still here, if a test wants that.
#[inline]
pub(crate) fn pass(place: FailPoint) {
    #[cfg(feature = "fail-points")]
    enabled::pass(place);
    #[cfg(not(feature = "fail-points"))]
    let _ = place;
}

#[cfg(feature = "fail-points")]
mod enabled {
    use std::process::Command;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::FailPoint;

    struct Plan {
        place: String,
        left: AtomicU32,
        signal: String,
    }

    static PLAN: LazyLock<Option<Plan>> = LazyLock::new(|| {
        let text = std::env::var("KAPPA_FAIL_POINT").ok()?;
        let mut parts = text.split(':');
        let (place, count, signal) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        tracing::warn!(place, count, signal, "this process will fail on purpose");
        Some(Plan { place: place.to_owned(), left: AtomicU32::new(count), signal: signal.to_owned() })
    });

    pub(super) fn pass(place: FailPoint) {
        let Some(plan) = PLAN.as_ref().filter(|plan| plan.place == format!("{place:?}")) else { return };
        if plan.left.fetch_sub(1, Ordering::Relaxed) != 1 {
            return;
        }
        tracing::warn!(?place, signal = plan.signal, "failing on purpose");
        let process = std::process::id().to_string();
        let sent = Command::new("kill").args([&format!("-{}", plan.signal), &process]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill does not work");
        // The signal may take a moment; nothing more may happen here meanwhile.
        if plan.signal == "KILL" {
            loop {
                std::thread::park();
            }
        }
    }
}
