//! The types of configuration values: what they accept, how they are shown, what they keep to themselves.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

/// What stands in place of anything secret.
pub(super) const REDACTED: &str = "<redacted>";

/// The address of an HTTP service. User info is sent to the service and shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceUrl(Url);

impl ServiceUrl {
    /// An address that was not configured; commands that need it have refused to start before.
    pub(super) fn unset() -> Self {
        Self(constant_url("http://unset.invalid/"))
    }

    /// The address itself, user info included: for the client, not for a log.
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// The address of `segments` below this one, each segment percent-encoded.
    pub fn join<'s>(&self, segments: impl IntoIterator<Item = &'s str>) -> Url {
        let mut url = self.0.clone();
        // Only `data:`-like addresses have no path, and those are refused when the value is read.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

/// Where objects are kept: `s3://bucket/prefix` or `file:///absolute/path`.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(Url);

impl StoreUrl {
    pub(super) fn unset() -> Self {
        Self(constant_url("file:///unset"))
    }

    /// The address itself.
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// The address in the one form in which two that mean the same place are equal.
    pub fn normalized(&self) -> String {
        self.0.as_str().trim_end_matches('/').to_owned()
    }

    /// Whether `other` is this place or lies below it.
    pub fn contains(&self, other: &Self) -> bool {
        let (outer, inner) = (self.normalized(), other.normalized());
        inner.strip_prefix(&outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Where in the topic a group starts that has not committed anything yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPolicy {
    /// With the oldest record that the topic still has.
    Earliest,
    /// With the first record after start-up.
    Latest,
    /// With the first record at or after this time, milliseconds since the epoch.
    Timestamp(i64),
}

/// A secret: it can be used, not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Reads a secret from a file; the line break that editors put behind it is not part of it.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// The secret itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

/// Parses an address that is written in this program.
fn constant_url(text: &str) -> Url {
    #[expect(clippy::unwrap_used, reason = "the callers pass literals, and a test parses each")]
    Url::parse(text).unwrap()
}

/// The address without what may be secret: user info and query.
pub(super) fn redact_url(url: &Url) -> String {
    let mut shown = url.clone();
    if !shown.username().is_empty() || shown.password().is_some() {
        // Both fail only for addresses without a host, which have no user info either.
        let _ = shown.set_username("redacted");
        let _ = shown.set_password(None);
    }
    if shown.query().is_some() {
        shown.set_query(Some("redacted"));
    }
    shown.to_string()
}

macro_rules! url_value {
    ($type:ident, $parse:path) => {
        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&redact_url(&self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&redact_url(&self.0))
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                $parse(text).map(Self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

url_value!(ServiceUrl, parse_service_url);
url_value!(StoreUrl, parse_store_url);

fn parse_service_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("a service is reached by http:// or https://, not by {}:", url.scheme()));
    }
    Ok(url)
}

fn parse_store_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a place for objects has no ?query and no #fragment".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials come from the AWS_ variables, never from the URL".to_owned());
    }
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        "s3" if host.is_empty() => Err("s3:// needs the name of a bucket".to_owned()),
        "file" if !host.is_empty() => Err("file:// needs three slashes and an absolute path".to_owned()),
        "file" if url.path() == "/" => Err("the root directory is no place for objects".to_owned()),
        "s3" | "file" => Ok(url),
        other => Err(format!("objects are kept on s3:// or file://, not on {other}:")),
    }
}

impl StartPolicy {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            time => chrono::DateTime::parse_from_rfc3339(time)
                .map(|time| Self::Timestamp(time.timestamp_millis()))
                .map_err(|error| format!("neither a policy nor a time: {error}")),
        }
    }
}

impl fmt::Display for StartPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => formatter.write_str("earliest"),
            Self::Latest => formatter.write_str("latest"),
            Self::Timestamp(milliseconds) => match chrono::DateTime::from_timestamp_millis(*milliseconds) {
                Some(time) => write!(formatter, "{}", time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)),
                None => write!(formatter, "{milliseconds} ms since the epoch"),
            },
        }
    }
}

impl Serialize for StartPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StartPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Sizes: read as `64MiB` or a number of bytes, shown in the largest unit that is exact.
pub(super) mod size {
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serializer};

    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `with` asks for a reference")]
    pub(crate) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        let exact = UNITS.iter().find(|(unit, _)| *bytes >= *unit && bytes.is_multiple_of(*unit));
        match exact {
            Some((unit, name)) => serializer.collect_str(&format_args!("{}{name}", bytes / unit)),
            None => serializer.collect_str(&format_args!("{bytes}B")),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        ByteSize::deserialize(deserializer).map(|size| size.as_u64())
    }
}

/// Lists: read as a list, or as one text with commas (as `bootstrap.servers` and environment variables have it).
pub(super) fn comma_separated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct ListVisitor;

    impl<'de> serde::de::Visitor<'de> for ListVisitor {
        type Value = Vec<String>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of texts, or one text with commas")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(ListVisitor)
}

/// Optional texts: an empty one means "none", so that a default can be taken away.
pub(super) fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// Optional paths: an empty one means "none".
pub(super) fn optional_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(optional_text(deserializer)?.map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_stores() {
        for good in ["s3://bucket", "s3://bucket/a/b", "file:///var/lib/kappa"] {
            assert!(good.parse::<StoreUrl>().is_ok(), "{good}");
        }
        let bad =
            ["s3:///prefix", "file://relative/path", "file:///", "gs://bucket", "s3://key:pw@bucket", "s3://b?x=1"];
        for bad in bad {
            assert!(bad.parse::<StoreUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn one_place_lies_in_another() {
        let place = |text: &str| text.parse::<StoreUrl>().unwrap();
        assert!(place("s3://b/a").contains(&place("s3://b/a/")));
        assert!(place("s3://b/a").contains(&place("s3://b/a/c")));
        assert!(place("s3://b").contains(&place("s3://b/a")));
        assert!(!place("s3://b/a").contains(&place("s3://b/ab")));
        assert!(!place("s3://b/a").contains(&place("s3://b")));
    }

    #[test]
    fn addresses_are_shown_without_their_secrets() {
        let url: ServiceUrl = "https://me:hunter2@registry:8081/apis?token=abc".parse().unwrap();
        assert_eq!(url.to_string(), "https://redacted@registry:8081/apis?redacted");
        assert_eq!(format!("{url:?}"), url.to_string());
        assert_eq!(serde_json::to_string(&url).unwrap(), format!("\"{url}\""));
        assert_eq!(url.as_url().password(), Some("hunter2"));
        let _ = (ServiceUrl::unset(), StoreUrl::unset());
    }

    #[test]
    fn segments_are_encoded() {
        let url: ServiceUrl = "http://registry/apis/ccompat/v7/".parse().unwrap();
        let joined = url.join(["subjects", "a/b c", "versions"]);
        assert_eq!(joined.as_str(), "http://registry/apis/ccompat/v7/subjects/a%2Fb%20c/versions");
    }

    #[test]
    fn start_policies() {
        assert_eq!(StartPolicy::parse("earliest"), Ok(StartPolicy::Earliest));
        assert_eq!(StartPolicy::parse("latest"), Ok(StartPolicy::Latest));
        let time = StartPolicy::parse("2026-11-24T12:00:00+01:00").unwrap();
        assert_eq!(time, StartPolicy::Timestamp(1_795_518_000_000));
        assert_eq!(StartPolicy::parse(&time.to_string()), Ok(time));
        assert!(StartPolicy::parse("yesterday").is_err());
    }
}
