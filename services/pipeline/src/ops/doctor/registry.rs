//! The registry, and whether we can read what it has for the topic.

use kappa_core::decode::{Decoder, ReaderSchema};

use super::Check;
use crate::config::Config;
use crate::registry::{RegistryClient, RegistryError};

pub(super) async fn check(config: &Config, reader: Option<&ReaderSchema>) -> Vec<Check> {
    const ADVICE: &str = "check registry.url: the root of the Confluent-compatible API, with its path if it has one \
                          (Apicurio: /apis/ccompat/v7); and registry.user with registry.password_file";
    let client = match RegistryClient::new(&config.registry) {
        Ok(client) => client,
        Err(error) => return vec![Check::error("registry", &error)],
    };
    let subjects = match client.subjects().await {
        Ok(subjects) => subjects.len(),
        Err(error) => return vec![Check::fail("registry", error.to_string(), ADVICE)],
    };
    let answers = Check::ok("registry", format!("{} has {subjects} subjects", config.registry.url));
    vec![answers, check_subject(config, &client, reader).await]
}

async fn check_subject(config: &Config, client: &RegistryClient, reader: Option<&ReaderSchema>) -> Check {
    const NAME: &str = "writer schema";
    let subject = format!("{}-value", config.kafka.topic);
    let latest = match client.latest(&subject).await {
        Ok(latest) => latest,
        Err(RegistryError::NotFound(_)) => {
            let advice =
                "`kappa schema register FILE` registers one; it is fine if producers name their subjects otherwise";
            return Check::warn(NAME, format!("there is no subject {subject}"), advice);
        }
        Err(error) => return Check::fail(NAME, error.to_string(), "check what the registry has for the subject"),
    };
    let found = format!("{subject} version {}", latest.version);
    if latest.schema_type != "AVRO" {
        return Check::fail(NAME, format!("{found} is {}", latest.schema_type), "register an Avro schema");
    }
    let Some(reader) = reader else {
        return Check::warn(
            NAME,
            format!("{found} was not tried: there is no reader schema"),
            "mend the reader schema",
        );
    };
    match Decoder::compile(&latest.avsc, &latest.references, reader, &config.decode_limits()) {
        Ok(_) => Check::ok(NAME, format!("{found} can be read")),
        Err(error) => Check::fail(
            NAME,
            format!("{found} cannot be read: {error}"),
            "give new fields of the reader schema a default, or register a schema that has them",
        ),
    }
}
