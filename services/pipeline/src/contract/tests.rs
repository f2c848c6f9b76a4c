use super::*;
use crate::config::BUILT_IN_SCHEMA;

fn reader() -> ReaderSchema {
    ReaderSchema::parse(BUILT_IN_SCHEMA).unwrap()
}

fn config(toml: &str) -> Config {
    crate::config::Sources::of_text(toml).load(crate::config::Needs::Nothing).unwrap().config
}

fn problems_of(text: &str) -> Vec<Problem> {
    check(text, &reader(), &config("")).1
}

/// The built-in contract with one text in place of another, which it must have once.
fn changed(from: &str, to: &str) -> String {
    assert_eq!(BUILT_IN_CONTRACT.matches(from).count(), 1, "{from}");
    BUILT_IN_CONTRACT.replacen(from, to, 1)
}

#[test]
fn the_built_in_contract_fits_the_built_in_schema_and_the_defaults() {
    assert_eq!(problems_of(BUILT_IN_CONTRACT), []);
    let (contract, rules) = in_force(&config(""), &reader()).unwrap().unwrap();
    assert_eq!(contract.title(), "kappa-sensor-readings 1.0.0");
    assert!(rules.label().unwrap().starts_with("kappa-sensor-readings 1.0.0 "), "{:?}", rules.label());
    assert!(rules.are_those_of(rules.label().unwrap()) && !rules.are_those_of("kappa-sensor-readings 1.0.0 0"));
}

#[test]
fn the_page_in_the_documentation_is_up_to_date() {
    let (contract, _) = read(BUILT_IN_CONTRACT);
    let expected = include_str!("../../../../docs/data-contract.md");
    assert_eq!(expected, page(&contract), "write it anew: target/release/kappa contract docs > docs/data-contract.md");
}

/// Each kind of mistake is named with its place, and alone: what is right is not blamed.
#[test]
fn each_mistake_is_named_with_its_place() {
    let value_range = "schema[0].properties[3].quality[0]";
    let battery = "schema[0].properties[7].quality[0]";
    let battery_rule = "{rule: range, min: 0, max: 1}";
    let cases: &[(&str, &str, &str, &str)] = &[
        // Keys and words.
        ("kind: DataContract", "kind: DataContrat", "kind", "did you mean DataContract?"),
        ("dataProduct: Sensor fleet", "dataProdukt: Sensor fleet", "dataProdukt", "did you mean dataProduct?"),
        ("version: 1.0.0", "version: 1.0", "version", "is a number, where a text is needed; put quotes around it"),
        ("id: kappa-sensor-readings", "title: x", "title", "a contract of the standard has no such key"),
        (
            "{rule: required}",
            "{rule: requierd}",
            "schema[0].properties[4].quality[0].implementation.rule",
            "did you mean required?",
        ),
        (
            "PRESSURE: {min: 0,",
            "PRESSURE: {minn: 0,",
            &format!("{value_range}.implementation.values.PRESSURE.minn"),
            "did you mean min?",
        ),
        (
            "rule: range\n              by",
            "rule: range\n              buy",
            &format!("{value_range}.implementation.buy"),
            "did you mean by?",
        ),
        (
            "max: 256}",
            "max: many}",
            "schema[0].properties[0].quality[0].implementation.max",
            "is a text, where a whole number from 0 on is needed",
        ),
        (
            "duration: 30d",
            "duration: a month",
            "schema[0].properties[2].quality[0].implementation.duration",
            "is no duration",
        ),
        ("name: battery_range", "name: Battery-Range", &format!("{battery}.name"), "no snake_case"),
        ("name: battery_range", "name: rssi_range", "schema[0].properties[8].quality[0]", "two rules \"rssi_range\""),
        ("action: mark}", "action: drop}", "schema[0].quality[0].implementation.action", "it may be mark"),
        (
            "            dimension: accuracy\n            severity: error",
            "            dimension: accuracy\n            severity: fatal",
            &format!("{value_range}.severity"),
            "it may be error, warning",
        ),
        ("        description: What is measured.\n", "", "schema[0].properties[1]", "has no `description`"),
        // Against the schema.
        (
            "- name: rssi\n",
            "- name: rsssi\n",
            "schema[0].properties[8]",
            "the schema has no field `rsssi`; did you mean rssi?",
        ),
        ("VOLTAGE: {min", "CURRENT: {min", value_range, "`metric` has no symbol \"CURRENT\" in the schema"),
        (
            "values: [GOOD, UNCERTAIN]",
            "values: [GOOD, FINE]",
            "schema[0].properties[5].quality[0]",
            "no symbol \"FINE\"",
        ),
        ("by: metric", "by: kind", value_range, "the schema has no field `kind`"),
        (
            "min: -90, max: 1000, unit: Cel",
            "min: 1000, max: -90, unit: Cel",
            value_range,
            "the smallest, 1000, is larger than the largest, -90",
        ),
        (
            "{rule: required}",
            "{rule: range, min: 0}",
            "schema[0].properties[4].quality[0]",
            "an int, long, float or double is needed",
        ),
        (battery_rule, "{rule: range}", battery, "it has no bound"),
        (battery_rule, "{rule: length, max: 3}", battery, "where a string is needed"),
        ("{rule: range, min: 0}", "{rule: range, min: 1e17}", "schema[0].properties[6].quality[0]", "not below 2^53"),
        ("{rule: range, min: 0}", "{rule: required}", "schema[0].properties[6].quality[0]", "never null in the schema"),
        (
            "{rule: range, min: -200, max: 50}",
            "{rule: allowed, values: []}",
            "schema[0].properties[8].quality[0]",
            "a string or an enum is needed",
        ),
        ("values: [GOOD, UNCERTAIN]", "values: []", "schema[0].properties[5].quality[0]", "no value is allowed"),
        (
            "values: [GOOD, UNCERTAIN]",
            "values: [GOOD, GOOD]",
            "schema[0].properties[5].quality[0]",
            "\"GOOD\" is listed twice",
        ),
        (
            "physicalType: timestamp-millis",
            "physicalType: timestamp-micros",
            "schema[0].properties[2]",
            "in the schema it is timestamp-millis, or long",
        ),
        ("logicalType: integer", "logicalType: string", "schema[0].properties[6]", "logicalType is string"),
        (
            "fields: [sensor_id, sequence]",
            "fields: [sensor_id, number]",
            "schema[0].quality[0]",
            "the schema has no field `number`",
        ),
        // Against the configuration.
        (
            "fields: [sensor_id, sequence]",
            "fields: [sensor_id, event_time]",
            "schema[0].quality[0]",
            "told by sensor_id, sequence (event.key, event.sequence), not by sensor_id, event_time",
        ),
        ("element: sequence", "element: value", "slaProperties[2]", "it is measured by event.sequence, sequence"),
        (
            "duration: 30d",
            "duration: 20d",
            "schema[0].properties[2].quality[0]",
            "20days here, 30days in limits.max_event_age",
        ),
        ("duration: 5m", "duration: 1h", "schema[0].properties[2].quality[1]", "limits.max_future_skew"),
        ("value: 99.9\n    unit: percent", "value: 999\n    unit: percent", "slaProperties[2]", "from 0 to 100"),
        (
            "element: sequence",
            "element: number",
            "slaProperties[2]",
            "completeness of `number`: the schema has no such field",
        ),
        (
            "value: 90\n    unit: d\n    element: windows_1m",
            "value: 2\n    unit: y\n    element: windows_1m",
            "slaProperties[3]",
            "TTL drops rows after 90",
        ),
        (
            "value: 90\n    unit: d\n    element: anomalies",
            "value: 7\n    unit: d\n    element: anomalies",
            "slaProperties[4]",
            "fewer than limits.max_event_age",
        ),
        ("value: 5\n    unit: s", "value: 5\n    unit: parsec", "slaProperties[0]", "has the unit \"parsec\""),
    ];
    for (from, to, path, message) in cases {
        let mut problems = problems_of(&changed(from, to));
        // What is missing because of it.
        problems.retain(|problem| {
            !problem.message.contains("has no `id`")
                && !problem.message.contains("has no `by`")
                && !problem.message.contains("does not describe the field `rssi`")
                && !problem.message.contains("rule rssi_range: the schema has no field")
        });
        let [problem] = problems.as_slice() else { panic!("{to}: {problems:?}") };
        assert_eq!(&problem.place.path, path, "{to}: {problem}");
        assert!(problem.message.contains(message), "{to}: {problem}");
        let line = problem.place.line as usize;
        assert!(line > 0 && line <= BUILT_IN_CONTRACT.lines().count(), "{to}: {problem}");
        assert!(problem.to_string().starts_with(&format!("line {line}: {path}: ")), "{problem}");
    }
}

#[test]
fn lines_are_those_of_the_file() {
    let text = changed("max: 256}", "max: many}");
    let wanted = text.lines().position(|line| line.contains("max: many}")).unwrap() + 1;
    assert_eq!(problems_of(&text)[0].place.line, wanted as u64);
}

#[test]
fn a_schema_of_ones_own_has_no_contract_until_one_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), BUILT_IN_SCHEMA).unwrap();
    let schema = format!("[event]\nschema = {:?}\n", file.path());
    assert_eq!(ContractSource::of(&config(&schema)), ContractSource::None);
    assert!(in_force(&config(&schema), &reader()).unwrap().is_none());
    assert_eq!(ContractSource::of(&config("[contract]\nfile = \"none\"")), ContractSource::None);
    assert_eq!(ContractSource::of(&config("[contract]\nfile = \"\"")), ContractSource::BuiltIn);
}

#[test]
fn a_rule_that_cannot_be_judged_stops_the_start_and_what_only_disagrees_does_not() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let with = |text: &str| {
        std::fs::write(file.path(), text).unwrap();
        in_force(&config(&format!("[contract]\nfile = {:?}", file.path())), &reader())
    };
    let error = with(&changed("by: metric", "by: kind")).unwrap_err().to_string();
    assert!(
        error.contains("contract.file") && error.contains("rule value_range: the schema has no field `kind`"),
        "{error}"
    );
    assert!(error.contains("line "), "{error}");
    assert!(with(&changed("duration: 30d", "duration: 20d")).unwrap().is_some());
}
