//! The rejected offsets of a segment, as its footer keeps them: a decision once taken is taken for good.

use serde_json::{Value, json};

use crate::reject::Reason;

/// Rejected offsets in order, as runs of neighbours with one reason: a topic that is all poison stays a few bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RejectedOffsets(Vec<Run>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    first: i64,
    count: i64,
    reason: Reason,
}

impl RejectedOffsets {
    /// Appends an offset behind all others.
    pub fn push(&mut self, offset: i64, reason: &Reason) {
        if let Some(last) = self.0.last_mut()
            && last.first + last.count == offset
            && last.reason == *reason
        {
            last.count += 1;
            return;
        }
        self.0.push(Run { first: offset, count: 1, reason: reason.clone() });
    }

    /// The reason for which an offset was rejected.
    pub fn reason_of(&self, offset: i64) -> Option<&Reason> {
        let behind = self.0.partition_point(|run| run.first <= offset);
        let run = &self.0[behind.checked_sub(1)?];
        (offset < run.first + run.count).then_some(&run.reason)
    }

    /// How many offsets.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|run| run.count as u64).sum()
    }

    /// Bytes held, for the memory budget.
    pub fn memory(&self) -> usize {
        self.0.capacity() * size_of::<Run>()
    }

    /// `[[first offset, count, reason], …]`
    pub fn to_json(&self) -> String {
        let runs = self.0.iter().map(|run| json!([run.first, run.count, run.reason.name()]));
        Value::Array(runs.collect()).to_string()
    }

    /// Reads [`Self::to_json`] back; `None` if it is not that.
    pub fn from_json(text: &str) -> Option<Self> {
        let runs: Vec<(i64, i64, String)> = parse_runs(text)?;
        let mut behind = i64::MIN;
        let mut out = Vec::with_capacity(runs.len());
        for (first, count, reason) in runs {
            if first < behind || count < 1 {
                return None;
            }
            behind = first.checked_add(count)?;
            out.push(Run { first, count, reason: Reason::parse(&reason)? });
        }
        Some(Self(out))
    }
}

fn parse_runs(text: &str) -> Option<Vec<(i64, i64, String)>> {
    let parsed: Value = serde_json::from_str(text).ok()?;
    let one = |run: &Value| {
        let [first, count, reason] = run.as_array()?.as_slice() else { return None };
        Some((first.as_i64()?, count.as_i64()?, reason.as_str()?.to_owned()))
    };
    parsed.as_array()?.iter().map(one).collect()
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
        rejected.push(10, &Reason::contract("range"));
        let json = rejected.to_json();
        assert_eq!(json, r#"[[3,3,"tombstone"],[9,1,"tombstone"],[10,1,"contract_range"]]"#);
        assert_eq!(RejectedOffsets::from_json(&json), Some(rejected.clone()));
        let found: Vec<_> = (2..12).filter(|offset| rejected.reason_of(*offset).is_some()).collect();
        assert_eq!(found, [3, 4, 5, 9, 10]);
        assert_eq!(rejected.reason_of(10), Some(&Reason::contract("range")));
        assert_eq!(rejected.count(), 5);
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
