//! Series keys interned to dense ids, so that per-series state lies in plain vectors.

use std::sync::Arc;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::rows::SeriesKey;

/// A dense number for a series, valid until the table is rebuilt.
pub type SeriesId = u32;

/// Keys by id, and ids by key.
#[derive(Debug, Default)]
pub struct SeriesTable {
    /// Seed of the hash, given from outside, so that a producer cannot choose keys that collide.
    seed: u64,
    ids: HashTable<SeriesId>,
    keys: Vec<Arc<SeriesKey>>,
    /// Bytes of all keys.
    key_bytes: usize,
}

impl SeriesTable {
    /// An empty table.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The id of a key, a new one if it was never seen.
    pub fn intern(&mut self, parts: &[&str]) -> SeriesId {
        let Self { seed, ids, keys, .. } = self;
        let hash = hash_of(*seed, parts.iter().copied());
        let found = ids.find(hash, |id| keys[*id as usize].parts().eq(parts.iter().copied()));
        if let Some(id) = found {
            return *id;
        }
        self.add(hash, SeriesKey::new(parts.iter().copied()))
    }

    fn add(&mut self, hash: u64, key: SeriesKey) -> SeriesId {
        let id = self.keys.len() as SeriesId;
        self.key_bytes += key.memory();
        self.keys.push(Arc::new(key));
        let Self { seed, ids, keys, .. } = self;
        ids.insert_unique(hash, id, |id| hash_of(*seed, keys[*id as usize].parts()));
        id
    }

    /// The seed of the hash.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The key of an id.
    pub fn key(&self, id: SeriesId) -> &Arc<SeriesKey> {
        &self.keys[id as usize]
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no series was seen yet.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Bytes held, for the memory budget.
    pub fn memory(&self) -> usize {
        self.key_bytes + self.keys.capacity() * size_of::<Arc<SeriesKey>>() * 3 + self.ids.capacity() * 5
    }
}

fn hash_of<'a>(seed: u64, parts: impl Iterator<Item = &'a str>) -> u64 {
    // Chaining by the seed keeps ("ab", "c") and ("a", "bc") apart.
    parts.fold(seed, |hash, part| xxh3_64_with_seed(part.as_bytes(), hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_dense_and_stable() {
        let mut table = SeriesTable::new(7);
        let ids: Vec<_> = [["a", "bc"], ["ab", "c"], ["a", "bc"]].iter().map(|key| table.intern(key)).collect();
        assert_eq!(ids, [0, 1, 0]);
        assert_eq!(table.key(1).parts().collect::<Vec<_>>(), ["ab", "c"]);
        assert_eq!(table.len(), 2);
    }
}
