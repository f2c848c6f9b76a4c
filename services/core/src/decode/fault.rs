//! What went wrong inside a record body, before it becomes a [`Reject`].
//!
//! A fault is boxed, so the results of the hot path fit in two registers, and it collects the field path while the
//! calls unwind, so nobody keeps a path while all is well.

use crate::reject::{Reason, Reject, about_field};

/// The result of reading one value.
pub(super) type Outcome<T> = Result<T, Box<Fault>>;

/// Why the value at hand cannot be read.
#[derive(Debug)]
pub(super) struct Fault {
    reason: Reason,
    detail: String,
    /// Innermost first: field names, `[]` for array items and map values.
    path: Vec<String>,
}

/// A fault without a path yet.
#[cold]
#[inline(never)]
pub(super) fn fault<T>(reason: Reason, detail: String) -> Outcome<T> {
    Err(Box::new(Fault { reason, detail, path: Vec::new() }))
}

impl Fault {
    /// Notes the field, or `[]`, in which the fault happened.
    #[expect(clippy::unnecessary_box_returns, reason = "it stays in the box of `Outcome`")]
    #[cold]
    #[inline(never)]
    pub(super) fn inside(mut self: Box<Self>, name: &str) -> Box<Self> {
        self.path.push(name.to_owned());
        self
    }

    /// The refusal with the whole path in front.
    #[cold]
    pub(super) fn into_reject(self) -> Reject {
        let mut path = String::new();
        for part in self.path.iter().rev() {
            if !path.is_empty() && part != ITEM {
                path.push('.');
            }
            path.push_str(part);
        }
        Reject::new(self.reason, about_field(&path, &self.detail))
    }
}

/// Stands in a path for any item of an array or any value of a map.
pub(super) const ITEM: &str = "[]";
