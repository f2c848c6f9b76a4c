//! The rules of schema resolution as sentences, each in one place: for the dead letters, and for people beforehand.

use super::schema::Logical;

/// "If the reader's record schema has a field with no default value, and writer's schema does not have a field with the
/// same name, an error is signalled."
pub(super) const NO_DEFAULT: &str = "the writer does not have the field, and the reader has no default for it";

/// Unions of records of one name can multiply.
pub(super) const TOO_INTRICATE: &str = "the schemas are too intricate together";

/// Types that are neither the same nor promoted.
pub(super) fn no_promotion(writer: &str, reader: &str) -> String {
    format!("the writer's {writer} cannot be read as {reader}")
}

/// Only records have fields.
pub(super) fn no_record(writer: &str) -> String {
    format!("the writer's schema is of type {writer}, a record is needed")
}

/// Fixed types match by name and size.
pub(super) fn sizes_differ(name: &str, writer: usize, reader: usize) -> String {
    format!("fixed `{name}` has {writer} bytes, the reader's has {reader}")
}

/// Named types match by their unqualified names, or by an alias of the reader's.
pub(super) fn names_differ(what: &str, writer: &str, reader: &str) -> String {
    format!("the writer's {what} `{writer}` is neither called like the reader's `{reader}` nor its alias")
}

/// No branch of the reader's union takes the writer's type.
pub(super) fn no_branch(writer: &str) -> String {
    format!("the reader's union has no branch for the writer's {writer}")
}

/// One branch of the writer's union cannot be read; records that have it are refused, the others are not.
pub(super) fn refused_branch(branch: &str, rule: &str) -> String {
    format!("the writer's union has branch `{branch}` here: {rule}")
}

/// "Two schemas that are decimal logical types match if their scales and precisions match."
pub(super) fn decimals_differ(writer: Option<Logical>, reader: Option<Logical>) -> Option<String> {
    let (Some(writer @ Logical::Decimal { .. }), Some(reader @ Logical::Decimal { .. })) = (writer, reader) else {
        return None;
    };
    (writer != reader).then(|| format!("the writer's {writer} is not the reader's {reader}"))
}
