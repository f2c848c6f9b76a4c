//! Schemas that are put together from others.

use std::collections::{BTreeSet, VecDeque};

use super::api::{Api, ApiError, SchemaReferral};
use super::{Miss, require_avro};

/// Most schemas that one may be put together from. Far above what people write, far below what hurts.
const MOST: usize = 256;

/// One step of the walk: go into a reference, or come back out of it with its text.
enum Step {
    Enter(SchemaReferral),
    Leave((String, i32), String),
}

/// The texts of all schemas that a schema refers to, directly or not, each behind those that it needs itself.
pub(super) async fn resolve(api: &Api, referrals: &[SchemaReferral]) -> Result<Vec<String>, Miss> {
    let mut steps: VecDeque<Step> = enter_all(referrals);
    let mut open: Vec<(String, i32)> = Vec::new();
    let mut done = BTreeSet::new();
    let mut texts = Vec::new();
    while let Some(step) = steps.pop_front() {
        let reference = match step {
            Step::Enter(reference) => reference,
            Step::Leave(key, text) => {
                open.pop();
                done.insert(key);
                texts.push(text);
                continue;
            }
        };
        let key = (reference.subject, reference.version);
        if done.contains(&key) {
            continue;
        }
        let (subject, version) = &key;
        if open.contains(&key) {
            return Err(Miss::NotAvro(format!("its references go round in a circle at {subject} version {version}")));
        }
        if done.len() + open.len() >= MOST {
            return Err(Miss::NotAvro(format!("it is put together from more than {MOST} schemas")));
        }
        let body =
            api.version(subject, &version.to_string()).await.map_err(|error| missing(subject, *version, error))?;
        require_avro(&body, &format!("its reference {subject} version {version}"))?;
        let mut inner = enter_all(&body.references);
        inner.push_back(Step::Leave(key.clone(), body.schema));
        inner.append(&mut steps);
        steps = inner;
        open.push(key);
    }
    Ok(texts)
}

fn enter_all(references: &[SchemaReferral]) -> VecDeque<Step> {
    references.iter().cloned().map(Step::Enter).collect()
}

fn missing(subject: &str, version: i32, error: ApiError) -> Miss {
    let what = format!("its reference {subject} version {version}");
    match error {
        ApiError::Unavailable(detail) => Miss::Unavailable(detail),
        ApiError::Refused { not_found: true, message, .. } => Miss::Unknown(format!("{what} is unknown: {message}")),
        ApiError::Refused { status, message, .. } => {
            Miss::Unavailable(format!("{what}: it answers {status}: {message}"))
        }
    }
}
