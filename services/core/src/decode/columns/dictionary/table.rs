//! The hash table of a dictionary: open addressing with linear probing (Knuth, The Art of Computer Programming 6.4).
//!
//! A table of our own, because a look-up is the dearest step of an event unless its slot is asked of memory in time
//! ([`Table::prefetch`]), and because a short value lies in its slot whole, so that no other memory is touched.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::prefetch::prefetch;

/// Longest value that [`Words`] holds without loss.
const EXACT: usize = 16;
/// The key of a slot that holds nothing.
const FREE: u32 = u32::MAX;
/// Slots of the smallest table; the number is always a power of two.
const FEWEST_SLOTS: usize = 64;

/// Values by their words. Values go in the opposite order of how they came.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    used: usize,
    seed: u64,
}

/// One value: 24 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) words: Words,
    pub(super) key: u32,
}

/// A value in fixed size: with the length, exact up to 16 bytes, a hash beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Words {
    low: u64,
    high: u64,
    length: u32,
}

impl Words {
    /// Overlapping loads from both ends, which together see each byte.
    #[inline]
    pub(super) fn of(value: &[u8]) -> Self {
        let length = value.len() as u32;
        let (low, high) = match value {
            [] => (0, 0),
            [first, ..] if value.len() < 4 => {
                let (middle, last) = (value[value.len() / 2], value[value.len() - 1]);
                (u64::from(u32::from_le_bytes([*first, middle, last, 0])), 0)
            }
            _ if value.len() > EXACT => (xxh3_64_with_seed(value, 0), 0),
            _ => match (value.first_chunk(), value.last_chunk()) {
                (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
                _ => (half(value.first_chunk()), half(value.last_chunk())),
            },
        };
        Self { low, high, length }
    }

    /// Whether the words of `value` stand for it alone.
    #[inline]
    pub(super) fn are_exact(value: &[u8]) -> bool {
        value.len() <= EXACT
    }

    /// A folded product, as in wyhash.
    #[inline]
    fn hash(self, seed: u64) -> usize {
        let left = self.low ^ 0xa076_1d64_78bd_642f ^ seed;
        let right = self.high ^ 0xe703_7ed1_a0b4_28db ^ u64::from(self.length).rotate_left(32);
        let product = u128::from(left) * u128::from(right);
        let folded = (product ^ product >> 64) as u64;
        (folded ^ folded >> 32) as usize
    }
}

#[inline]
fn half(bytes: Option<&[u8; 4]>) -> u64 {
    bytes.map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
}

impl Table {
    /// An empty table. `seed`: any number that those who choose the values cannot know.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// The slot with these words for which `is_the_value` holds.
    #[inline]
    pub(super) fn find(&self, words: Words, is_the_value: impl Fn(Slot) -> bool) -> Option<Slot> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = words.hash(self.seed) & mask;
        loop {
            let slot = self.slots[at];
            if slot.key == FREE {
                return None;
            }
            if slot.words == words && is_the_value(slot) {
                return Some(slot);
            }
            at = (at + 1) & mask;
        }
    }

    /// Begins to load the place where [`Self::find`] starts.
    #[inline]
    pub(super) fn prefetch(&self, words: Words) {
        if let Some(mask) = self.slots.len().checked_sub(1) {
            prefetch(&self.slots, words.hash(self.seed) & mask);
        }
    }

    /// Adds a value that is not in the table.
    pub(super) fn insert(&mut self, slot: Slot) {
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.place(slot);
        self.used += 1;
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(FEWEST_SLOTS);
        let free = Slot { words: Words::of(&[]), key: FREE };
        let mut old: Vec<Slot> = std::mem::replace(&mut self.slots, vec![free; slots]);
        old.retain(|slot| slot.key != FREE);
        // In the order in which they came, so that the last value is still the last of its chain.
        old.sort_unstable_by_key(|slot| slot.key);
        for slot in old {
            self.place(slot);
        }
    }

    fn place(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.words.hash(self.seed) & mask;
        while self.slots[at].key != FREE {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    /// Takes out the value that came last: no other value's chain leads through its place.
    pub(super) fn remove_last(&mut self, last: Slot) {
        let Some(mask) = self.slots.len().checked_sub(1) else { return };
        let mut at = last.words.hash(self.seed) & mask;
        while self.slots[at].key != last.key {
            if self.slots[at].key == FREE {
                return;
            }
            at = (at + 1) & mask;
        }
        self.slots[at].key = FREE;
        self.used -= 1;
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn values_come_and_go_like_a_stack() {
        let text = |key: u32| format!("value-{key}");
        let mut table = Table::new(42);
        let mut model: BTreeMap<String, u32> = BTreeMap::new();
        for (grow_to, shrink_to) in [(40, 0), (1_000, 300), (5_000, 4_990), (6_200, 6_000)] {
            for key in model.len() as u32..grow_to {
                table.insert(Slot { words: Words::of(text(key).as_bytes()), key });
                model.insert(text(key), key);
            }
            for key in (shrink_to..grow_to).rev() {
                table.remove_last(Slot { words: Words::of(text(key).as_bytes()), key });
                model.remove(&text(key));
            }
            for key in 0..grow_to + 10 {
                let found = table.find(Words::of(text(key).as_bytes()), |_| true).map(|slot| slot.key);
                assert_eq!(found, model.get(&text(key)).copied());
            }
        }
    }

    #[test]
    fn words_that_are_no_proof_are_compared_by_the_caller() {
        let words = Words::of(b"longer than sixteen bytes");
        let mut table = Table::new(1);
        table.insert(Slot { words, key: 0 });
        table.insert(Slot { words, key: 1 });
        assert_eq!(table.find(words, |slot| slot.key == 1).map(|slot| slot.key), Some(1));
        assert!(table.find(words, |_| false).is_none());
        assert!(!Words::are_exact(b"longer than sixteen bytes") && Words::are_exact(b"sixteen bytes..."));
    }

    #[test]
    fn places_depend_on_the_seed() {
        let places = |seed| (0..64_u32).map(|key| Words::of(&key.to_le_bytes()).hash(seed) & 63).collect::<Vec<_>>();
        assert_ne!(places(1), places(2));
    }
}
