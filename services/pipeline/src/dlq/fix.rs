//! What is changed in a record before it is sent again.

use kappa_core::decode::{SchemaReference, VALUE_SCHEMA_HEADER, unframe};
use kappa_core::reject::Reason;

use super::expression::Expression;
use super::judge::{Judge, as_batch};
use crate::dead_letters::DeadLetter;

type Headers = Vec<(String, Option<Vec<u8>>)>;

/// No change, another schema id, an expression, or both.
#[derive(Debug, Default)]
pub struct Fix {
    /// The body was written with this schema, whatever its framing says.
    pub schema_id: Option<i32>,
    /// Changes the event.
    pub expression: Option<Expression>,
}

/// A dead letter after the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fixed {
    /// To be sent like this.
    Record { value: Option<Vec<u8>>, headers: Headers },
    /// The expression gave nothing.
    Dropped,
    /// The fix cannot be made, for this reason.
    Impossible(String),
}

impl Fix {
    /// Whether anything is changed.
    pub fn is_none(&self) -> bool {
        self.schema_id.is_none() && self.expression.is_none()
    }

    /// In short, for the ledger and a header.
    pub fn text(&self) -> Option<String> {
        let schema = self.schema_id.map(|id| format!("schema {id}"));
        let expression = self.expression.as_ref().map(|expression| expression.text().to_owned());
        let parts: Vec<String> = schema.into_iter().chain(expression).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Makes the changes.
    pub(super) async fn apply(&self, letter: &DeadLetter, judge: &mut Judge) -> anyhow::Result<Fixed> {
        if self.is_none() {
            return Ok(Fixed::Record { value: letter.value.clone(), headers: letter.headers.clone() });
        }
        let batch = as_batch(letter.value.as_deref(), &letter.headers, letter.timestamp_ms);
        let record = batch.get(0);
        let (reference, body) = match (unframe(record.value, record.headers), self.schema_id, record.value) {
            (Ok((_, body)), Some(id), _) => (SchemaReference::Id(id), body),
            (Ok((reference, body)), None, _) => (reference, body),
            // Whoever names the schema of bytes without a frame means all of them.
            (Err(reject), Some(id), Some(value)) if reject.reason == Reason::BadMagic => {
                (SchemaReference::Id(id), value)
            }
            (Err(reject), ..) => return Ok(Fixed::Impossible(format!("there is no event in it: {}", reject.detail))),
        };
        let changed = match &self.expression {
            None => body.to_vec(),
            Some(expression) => match changed(expression, letter, reference, body, judge).await? {
                Ok(Some(changed)) => changed,
                Ok(None) => return Ok(Fixed::Dropped),
                Err(problem) => return Ok(Fixed::Impossible(problem)),
            },
        };
        let in_header = self.schema_id.is_none() && letter.header(VALUE_SCHEMA_HEADER).is_some();
        let mut headers = letter.headers.clone();
        let value = match reference {
            _ if in_header => changed,
            SchemaReference::Id(id) => {
                headers.retain(|(name, _)| name != VALUE_SCHEMA_HEADER);
                [&[0], id.to_be_bytes().as_slice(), &changed].concat()
            }
            SchemaReference::Guid(_) => changed,
        };
        Ok(Fixed::Record { value: Some(value), headers })
    }
}

async fn changed(
    expression: &Expression,
    letter: &DeadLetter,
    reference: SchemaReference,
    body: &[u8],
    judge: &mut Judge,
) -> anyhow::Result<Result<Option<Vec<u8>>, String>> {
    let writer = match judge.writer(reference).await? {
        Ok(writer) => writer,
        Err(reject) => return Ok(Err(format!("there is no schema to read it with: {}", reject.detail))),
    };
    let reading = writer.natural.read(body);
    // All fields are there if only something follows the last one.
    if let Some(failure) = reading.failure.as_ref().filter(|failure| failure.field.is_some()) {
        return Ok(Err(format!("the event cannot be read whole: {}", failure.reject.detail)));
    }
    let event = expression.apply(&reading.json(), letter);
    Ok(event.and_then(|event| {
        let body = event.map(|event| writer.natural.write(&event)).transpose();
        body.map_err(|problem| format!("what the expression gives does not fit the schema: {problem}"))
    }))
}
