//! Schema ids that the registry did not know, remembered as part of the state.
//!
//! Whether the registry knows an id is the one decision that is not a function of the log: two owners of a partition
//! may ask at different times. So it is taken once and written down. A fresh "unknown" makes the open segment
//! *undecided*: no row may leave until the segment's footer, which holds the decision, is durable. From then on the
//! decision is state, restored from the snapshot like everything else, and holds for a while in log time.

use std::collections::BTreeMap;

use crate::decode::SchemaReference;
use crate::reject::{Reason, Reject};
use crate::snapshot::{SnapshotError, SnapshotReader, SnapshotWriter};

/// For so long, by Kafka timestamps, an "unknown" is not asked again.
const HOLDS_MS: i64 = 10 * 60 * 1_000;
/// The oldest are forgotten beyond this many, which only means that they are asked again.
const MOST: usize = 1_024;

/// Ids that the registry did not know, and when (Kafka timestamp) that was decided.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct UnknownSchemas(BTreeMap<SchemaReference, i64>);

impl UnknownSchemas {
    /// Whether the decision on `reference` still stands for a record of that timestamp.
    pub(super) fn holds(&self, reference: SchemaReference, timestamp_ms: i64) -> bool {
        self.0.get(&reference).is_some_and(|since| timestamp_ms < since.saturating_add(HOLDS_MS))
    }

    /// Follows the verdict on a record, given now or in the replayed footer.
    pub(super) fn follow(&mut self, reference: SchemaReference, timestamp_ms: i64, is_unknown: bool) {
        if !is_unknown {
            self.0.remove(&reference);
        } else if !self.holds(reference, timestamp_ms) {
            self.0.insert(reference, timestamp_ms);
        }
        if self.0.len() > MOST {
            let oldest = self.0.iter().min_by_key(|(reference, since)| (**since, **reference));
            if let Some(oldest) = oldest.map(|(reference, _)| *reference) {
                self.0.remove(&oldest);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn reject(reference: SchemaReference) -> Reject {
        Reject::new(Reason::UnknownSchemaId, format!("the registry does not know schema {reference}"))
    }

    pub(super) fn save(&self, into: &mut SnapshotWriter) {
        into.u32(self.0.len() as u32);
        for (reference, since) in &self.0 {
            match reference {
                SchemaReference::Id(id) => {
                    into.u8(0);
                    into.u32(*id as u32);
                }
                SchemaReference::Guid(guid) => {
                    into.u8(1);
                    for byte in guid {
                        into.u8(*byte);
                    }
                }
            }
            into.i64(*since);
        }
    }

    pub(super) fn load(from: &mut SnapshotReader<'_>) -> Result<Self, SnapshotError> {
        let mut unknown = BTreeMap::new();
        for _ in 0..from.count(13)? {
            let reference = match from.u8()? {
                0 => SchemaReference::Id(from.u32()? as i32),
                1 => {
                    let mut guid = [0; 16];
                    for byte in &mut guid {
                        *byte = from.u8()?;
                    }
                    SchemaReference::Guid(guid)
                }
                _ => return Err(from.malformed()),
            };
            unknown.insert(reference, from.i64()?);
        }
        Ok(Self(unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SchemaReference = SchemaReference::Id(7);

    #[test]
    fn a_decision_holds_for_a_while_and_a_later_sighting_does_not_prolong_it() {
        let mut unknown = UnknownSchemas::default();
        unknown.follow(ID, 1_000, true);
        unknown.follow(ID, 500_000, true);
        assert!(unknown.holds(ID, 1_000 + HOLDS_MS - 1));
        assert!(!unknown.holds(ID, 1_000 + HOLDS_MS));
        unknown.follow(ID, 2_000, false);
        assert!(!unknown.holds(ID, 2_000));
    }

    #[test]
    fn a_flood_of_ids_stays_bounded() {
        let mut unknown = UnknownSchemas::default();
        for id in 0..5_000 {
            unknown.follow(SchemaReference::Id(id), i64::from(id), true);
        }
        assert_eq!(unknown.0.len(), MOST);
        assert!(unknown.holds(SchemaReference::Id(4_999), 5_000) && !unknown.holds(SchemaReference::Id(0), 5_000));
    }

    #[test]
    fn it_survives_a_snapshot() {
        let mut unknown = UnknownSchemas::default();
        unknown.follow(ID, 1, true);
        unknown.follow(SchemaReference::Guid([3; 16]), 2, true);
        let mut writer = SnapshotWriter::new();
        unknown.save(&mut writer);
        let bytes = writer.finish();
        let mut reader = SnapshotReader::open(&bytes).expect("opens");
        assert_eq!(UnknownSchemas::load(&mut reader), Ok(unknown));
    }
}
