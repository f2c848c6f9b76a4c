//! Where a schema comes from: a file, a subject of the registry, or the pipeline's own.

use std::path::Path;

use anyhow::Context as _;
use kappa_core::decode::AvroSchema;

use crate::cli::{WrongUse, checked_reader_schema};
use crate::config::Config;
use crate::ops::advice::Advise;
use crate::registry::{RegistryClient, SchemaReferral};

/// The pipeline's own schema, as a source.
const READER: &str = "reader";

/// `TYPE=SUBJECT:VERSION`
pub(super) fn parse_referral(text: &str) -> Result<SchemaReferral, String> {
    let parsed = text.split_once('=').and_then(|(name, place)| {
        let (subject, version) = place.rsplit_once(':')?;
        Some(SchemaReferral { name: name.to_owned(), subject: subject.to_owned(), version: version.parse().ok()? })
    });
    parsed.ok_or_else(|| "expected TYPE=SUBJECT:VERSION".to_owned())
}

pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| WrongUse(format!("cannot read {}", file.display())))
}

/// `reader`, `SUBJECT:VERSION`, `SUBJECT:latest`, or a file.
pub(super) async fn schema(source: &str, config: &Config) -> anyhow::Result<AvroSchema> {
    if source == READER {
        return Ok(AvroSchema::from(&checked_reader_schema(config)?));
    }
    let (text, references) = match subject_and_version(source) {
        Some((subject, version)) => {
            let found = RegistryClient::new(&config.registry)?.version(subject, version).await;
            let found = found.advise(format!("there is no {source}"), "`kappa schema history` lists the versions")?;
            (found.avsc, found.references)
        }
        None => (read(source.as_ref())?, Vec::new()),
    };
    AvroSchema::parse(&text, &references).with_context(|| format!("{source} is not a valid Avro schema"))
}

/// A file may have a colon in its name too.
pub(super) fn subject_and_version(source: &str) -> Option<(&str, &str)> {
    let (subject, version) = source.rsplit_once(':').filter(|_| !Path::new(source).exists())?;
    let is_version = version == "latest" || version.parse::<u32>().is_ok();
    (is_version && !subject.is_empty()).then_some((subject, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        assert_eq!(subject_and_version("a-value:3"), Some(("a-value", "3")));
        assert_eq!(subject_and_version("a:b:latest"), Some(("a:b", "latest")));
        for file in ["v2.avsc", "c:v2.avsc", ":3", "a:-1"] {
            assert_eq!(subject_and_version(file), None, "{file}");
        }
        let referral = parse_referral("geo.Position=geo:x:12").unwrap();
        assert_eq!(
            (referral.name.as_str(), referral.subject.as_str(), referral.version),
            ("geo.Position", "geo:x", 12)
        );
        assert!(parse_referral("geo.Position").is_err() && parse_referral("a=b").is_err());
    }
}
