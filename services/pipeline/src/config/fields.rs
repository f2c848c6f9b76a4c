//! The fields that `[event]` names, held against the reader schema.

use arrow_schema::DataType;
use kappa_core::archive::METADATA_COLUMNS;
use kappa_core::contract::{is_number, is_text};
use kappa_core::decode::ReaderSchema;

use super::EventConfig;
use super::problems::Problem;

/// Everything wrong with the names of fields.
pub(super) fn check(event: &EventConfig, reader: &ReaderSchema) -> Vec<Problem> {
    let mut problems = Vec::new();
    for field in reader.arrow_fields().iter().filter(|field| METADATA_COLUMNS.contains(&field.name().as_str())) {
        let message = format!("has a field {:?}, which is the name of a column of the archive's own", field.name());
        problems.push(Problem::with_key("event.schema", message));
    }
    for field in &event.key {
        problems.extend(field_problem("event.key", field, reader, is_text, "a string or an enum"));
    }
    problems.extend(field_problem(
        "event.time",
        &event.time,
        reader,
        is_time,
        "a timestamp, or a long in milliseconds",
    ));
    problems.extend(field_problem("event.value", &event.value, reader, is_number, "an int, long, float or double"));
    if let Some(quality) = &event.quality {
        problems.extend(field_problem("event.quality", quality, reader, is_text, "a string or an enum"));
    }
    if let Some(site) = &event.site {
        problems.extend(field_problem("event.site", site, reader, is_text, "a string or an enum"));
    }
    if let Some(sequence) = &event.sequence {
        problems.extend(field_problem("event.sequence", sequence, reader, is_integer, "an int or a long"));
    }
    problems
}

fn field_problem(
    key: &str,
    field: &str,
    reader: &ReaderSchema,
    fits: fn(&DataType) -> bool,
    wanted: &str,
) -> Option<Problem> {
    let fields = reader.arrow_fields();
    let found = fields.iter().find(|candidate| candidate.name() == field);
    let message = match found {
        Some(found) if fits(found.data_type()) => return None,
        Some(found) => {
            format!("the field is of the type {} in the reader schema, where {wanted} is needed", found.data_type())
        }
        None => "the reader schema has no such field".to_owned(),
    };
    let usable: Vec<_> =
        fields.iter().filter(|field| fits(field.data_type())).map(|field| field.name().as_str()).collect();
    let allowed = Some(format!("one of the fields {}", usable.join(", ")));
    Some(Problem { value: Some(format!("{field:?}")), allowed, ..Problem::with_key(key, message) })
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Int64)
}

fn is_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int32 | DataType::Int64)
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Needs, Sources};
    use super::*;

    #[test]
    fn the_defaults_fit_the_built_in_schema() {
        let config = Config::template();
        let reader = ReaderSchema::parse(&config.reader_schema().unwrap()).unwrap();
        config.validate_against(&reader).unwrap();
    }

    #[test]
    fn a_field_must_not_hide_a_column_of_the_archive() {
        let avsc = super::super::BUILT_IN_SCHEMA.replacen("\"unit\"", "\"_offset\"", 1);
        let reader = ReaderSchema::parse(&avsc).unwrap();
        let problems = Config::template().validate_against(&reader).unwrap_err().problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].key, "event.schema");
        assert!(problems[0].to_string().contains("_offset"), "{}", problems[0]);
    }

    #[test]
    fn missing_and_unfit_fields_are_named_together() {
        let sources = Sources::default()
            .with_flag("event.key", "sensor_id,colour", "--set")
            .with_flag("event.time", "unit", "--set")
            .with_flag("event.value", "event_time", "--set")
            .with_flag("event.quality", "value", "--set");
        let config = sources.load(Needs::Nothing).unwrap().config;
        let reader = ReaderSchema::parse(super::super::BUILT_IN_SCHEMA).unwrap();
        let problems = config.validate_against(&reader).unwrap_err().problems;
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["event.key", "event.time", "event.value", "event.quality"]);
        let text = problems[0].to_string();
        assert!(text.contains("no such field") && text.contains("one of the fields sensor_id, metric"), "{text}");
    }
}
