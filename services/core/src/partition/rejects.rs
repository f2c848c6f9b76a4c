//! The rejected offsets of a segment, as its footer keeps them: a decision once taken is taken for good.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

use crate::reject::Reason;

/// Rejected offsets in order, as runs of neighbours with one reason: a topic that is all poison of one kind stays a few bytes,
/// and one of poison of many kinds 16 bytes a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RejectedOffsets {
    runs: Vec<Run>,
    /// Each reason once, in the order in which they came.
    reasons: Vec<Reason>,
}

/// Bytes of a run in JSON, about.
const TYPICAL_RUN: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: i64,
    count: u32,
    /// Index of the reason.
    reason: u32,
}

impl Run {
    fn end(self) -> i64 {
        self.first + i64::from(self.count)
    }
}

impl RejectedOffsets {
    /// Appends an offset behind all others.
    pub fn push(&mut self, offset: i64, reason: &Reason) {
        if let Some(last) = self.runs.last_mut()
            && last.end() == offset
            && self.reasons[last.reason as usize] == *reason
            && last.count < u32::MAX
        {
            last.count += 1;
            return;
        }
        self.push_run(offset, 1, reason);
    }

    fn push_run(&mut self, first: i64, count: u32, reason: &Reason) {
        let known = self.reasons.iter().position(|known| known == reason);
        let index = known.unwrap_or_else(|| {
            self.reasons.push(reason.clone());
            self.reasons.len() - 1
        });
        self.runs.push(Run { first, count, reason: index as u32 });
    }

    /// The reason for which an offset was rejected.
    pub fn reason_of(&self, offset: i64) -> Option<&Reason> {
        let behind = self.runs.partition_point(|run| run.first <= offset);
        let run = self.runs[behind.checked_sub(1)?];
        (offset < run.end()).then_some(&self.reasons[run.reason as usize])
    }

    /// How many offsets.
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.count)).sum()
    }

    /// Bytes held, for the memory budget.
    pub fn memory(&self) -> usize {
        self.runs.capacity() * size_of::<Run>() + self.reasons.capacity() * size_of::<Reason>()
    }

    /// `[[first offset, count, reason], …]`. By hand: there may be as many runs as records.
    pub fn to_json(&self) -> String {
        let names: Vec<String> = self.reasons.iter().map(|reason| Value::from(reason.name()).to_string()).collect();
        let mut json = String::with_capacity(2 + self.runs.len() * TYPICAL_RUN);
        json.push('[');
        for (index, Run { first, count, reason }) in self.runs.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a string never fails.
            let _ = write!(json, "{comma}[{first},{count},{}]", names[*reason as usize]);
        }
        json.push(']');
        json
    }

    /// Reads [`Self::to_json`] back; `None` if it is not that.
    pub fn from_json(text: &str) -> Option<Self> {
        let runs: Vec<(i64, u32, Cow<'_, str>)> = serde_json::from_str(text).ok()?;
        let mut behind = i64::MIN;
        let mut out = Self::default();
        for (first, count, reason) in runs {
            if first < behind || count < 1 {
                return None;
            }
            behind = first.checked_add(i64::from(count))?;
            out.push_run(first, count, &Reason::parse(&reason)?);
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_again() {
        let mut rejected = RejectedOffsets::default();
        for offset in [3, 4, 5, 9] {
            rejected.push(offset, &Reason::Tombstone);
        }
        rejected.push(10, &Reason::contract("a \"range\""));
        let json = rejected.to_json();
        assert_eq!(json, r#"[[3,3,"tombstone"],[9,1,"tombstone"],[10,1,"contract_a \"range\""]]"#);
        assert_eq!(RejectedOffsets::from_json(&json), Some(rejected.clone()));
        let found: Vec<_> = (2..12).filter(|offset| rejected.reason_of(*offset).is_some()).collect();
        assert_eq!(found, [3, 4, 5, 9, 10]);
        assert_eq!(rejected.reason_of(10), Some(&Reason::contract("a \"range\"")));
        assert_eq!(rejected.count(), 5);
        assert_eq!(RejectedOffsets::default().to_json(), "[]");
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in
            ["", "{}", "[[1]]", "[[1,0,\"tombstone\"]]", "[[5,2,\"tombstone\"],[6,1,\"tombstone\"]]", "[[1,1,\"x\"]]"]
        {
            assert_eq!(RejectedOffsets::from_json(bad), None, "{bad}");
        }
    }
}
