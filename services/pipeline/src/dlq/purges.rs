//! What was purged on purpose: create-only marks beside the dead letters, so that `kappa verify` can tell a purge from
//! damage.

use chrono::{DateTime, NaiveDateTime};
use object_store::path::Path;

use crate::storage::StoreRoot;
use crate::verify::listing::list;

const FOLDER: &str = "_purge";
const SUFFIX: &str = ".json";
const FORMAT: &str = "%Y-%m-%dT%H";

/// Key of the mark that says: dead letters of hours before this one may be missing.
pub(super) fn key(prefix: &Path, topic: &str, hour: i64) -> Path {
    prefix.clone().join(topic).join(FOLDER).join(format!("{}{SUFFIX}", shown(hour)).as_str())
}

/// An hour since the epoch, for people: `2026-11-26T10`.
pub fn shown(hour: i64) -> String {
    let time = DateTime::from_timestamp(hour.saturating_mul(3600), 0).unwrap_or_default();
    time.format(FORMAT).to_string()
}

/// The hour of a mark's key.
pub(super) fn parse_key(prefix: &Path, topic: &str, candidate: &Path) -> Option<i64> {
    let text = candidate.filename()?.strip_suffix(SUFFIX)?;
    let time = NaiveDateTime::parse_from_str(&format!("{text}:00"), "%Y-%m-%dT%H:%M").ok()?;
    let hour = time.and_utc().timestamp().div_euclid(3600);
    (key(prefix, topic, hour) == *candidate).then_some(hour)
}

/// The hour before which dead letters may be missing, if any were purged.
pub async fn horizon(root: &StoreRoot, topic: &str) -> anyhow::Result<Option<i64>> {
    let folder = root.prefix.clone().join(topic).join(FOLDER);
    let keys = list(root, &folder, 1).await?;
    Ok(keys.iter().filter_map(|(found, _)| parse_key(&root.prefix, topic, found)).max())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_strictly() {
        let prefix = Path::from("dead");
        let mark = key(&prefix, "t", 494_000);
        assert_eq!(mark.as_ref(), "dead/t/_purge/2026-05-10T08.json");
        assert_eq!(parse_key(&prefix, "t", &mark), Some(494_000));
        for bad in ["dead/t/_purge/2026-05-10T8.json", "dead/u/_purge/2026-05-10T08.json", "dead/t/2026-05-10T08.json"]
        {
            assert_eq!(parse_key(&prefix, "t", &Path::from(bad)), None, "{bad}");
        }
    }
}
