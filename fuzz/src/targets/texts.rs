//! Readers of what people write: configurations, data contracts.

use kappa_core::decode::ReaderSchema;
use kappa_pipeline::config::{BUILT_IN_SCHEMA, Config, Needs, Sources};
use kappa_pipeline::contract::{BUILT_IN_CONTRACT, check, page};

use super::{MIB, MINIMAL};
use crate::fuzzer::Target;
use crate::input::{Input, push_block};

/// A configuration file, and variables beside it.
#[derive(Debug)]
pub struct Configuration;

impl Target for Configuration {
    fn name(&self) -> &'static str {
        "configuration"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let seed = |toml: &str, variable: &str, value: &str| {
            let mut input = Vec::new();
            for part in [variable, value, toml] {
                push_block(&mut input, part.as_bytes());
            }
            input
        };
        let whole = "[event]\nkey = [\"sensor_id\", \"metric\"]\n[limits]\nmemory = \"1GiB\"\nmax_event_age = \"30d\"\n[pipeline]\nworkers = 2\n\
            [anomaly]\nthreshold = 6.5\n[log]\nformat = \"json\"\n[http]\nlisten = \"127.0.0.1:0\"\n";
        vec![
            seed(MINIMAL, "KAPPA__KAFKA__TOPIC", "other"),
            seed(&format!("{MINIMAL}{whole}"), "KAPPA__LIMITS__MEMORY", "256MiB"),
            seed(MINIMAL, "KAPPA__WINDOWS__LENGTH", "1h 30m"),
            seed("[kafka.properties]\n\"a.b\" = 1\n", "KAPPA__KAFKA__START", "2026-01-01T00:00:00Z"),
        ]
    }

    fn run(&self, input: &[u8]) -> String {
        let mut input = Input::new(input);
        let (variable, value) =
            (String::from_utf8_lossy(input.block()).into_owned(), String::from_utf8_lossy(input.block()).into_owned());
        let toml = String::from_utf8_lossy(input.block()).into_owned();
        match Sources::of_text(toml).with_variable(variable, value).load(Needs::Everything) {
            Ok(_) => "a configuration".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        16 * MIB + 2_000 * input.len()
    }
}

/// A data contract, held against the built-in schema and the defaults.
#[derive(Debug)]
pub struct ContractText {
    reader: ReaderSchema,
    config: Config,
}

impl ContractText {
    /// With the built-in schema.
    pub fn new() -> Self {
        let config = Config::from_toml(MINIMAL).expect("a configuration");
        Self { reader: ReaderSchema::parse(BUILT_IN_SCHEMA).expect("the built-in schema"), config }
    }
}

impl Default for ContractText {
    fn default() -> Self {
        Self::new()
    }
}

impl Target for ContractText {
    fn name(&self) -> &'static str {
        "contract"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let rule = |implementation: &str| {
            let head = "apiVersion: v3.1.0\nkind: DataContract\nid: c\nversion: 1.0.0\nstatus: draft\ndescription: {purpose: x}\n\
                team: {name: t, members: [{username: u}]}\nschema:\n- name: o\n  properties:\n  - name: value\n    description: d\n\
                \x20   classification: c\n    quality:\n    - {name: r, description: d, type: custom, engine: kappa, severity: error, ";
            format!("{head}implementation: {implementation}}}\n").into_bytes()
        };
        let mut seeds = vec![BUILT_IN_CONTRACT.as_bytes().to_vec(), b"a: &a [1, 2]\nb: *a\n".to_vec()];
        seeds.extend(
            ["{rule: range, min: 0}", "{rule: range, by: metric, values: {OTHER: {max: 1.5e3}}}", "{rule: required}"]
                .map(rule),
        );
        seeds.extend(
            ["{rule: length, max: 9}", "{rule: allowed, values: [a, b]}", "{rule: max_event_age, duration: 3d}"]
                .map(rule),
        );
        seeds
    }

    fn run(&self, input: &[u8]) -> String {
        let (contract, problems) = check(&String::from_utf8_lossy(input), &self.reader, &self.config);
        _ = page(&contract);
        problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        16 * MIB + 4_000 * input.len()
    }
}
