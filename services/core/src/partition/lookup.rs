//! From a decoded row to its series: by the symbols that the decoder has interned already, without touching a text.

use crate::decode::Columns;
use crate::prefetch::prefetch;
use crate::windows::{SeriesId, Windows};

/// A key whose second and further fields have more symbols than this together is looked up by text.
const MAX_STRIDE_BITS: u32 = 8;
const UNKNOWN: SeriesId = SeriesId::MAX;

/// Remembers which combination of symbols is which series.
#[derive(Debug)]
pub(super) struct SeriesLookup {
    key_columns: Vec<usize>,
    /// Bits that the symbols of the second and further key fields take.
    bits: Vec<u32>,
    /// Series by the packed symbols.
    known: Vec<SeriesId>,
    generation: u64,
    /// How often the bits have changed: what was packed before means nothing since.
    widened: u32,
}

/// Where the series of a row is looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Its packed symbols, where they fit.
    packed: Option<u32>,
    widened: u32,
}

impl SeriesLookup {
    pub(super) fn new(key_columns: impl Iterator<Item = usize>) -> Self {
        let key_columns: Vec<_> = key_columns.collect();
        Self { bits: vec![0; key_columns.len()], key_columns, known: Vec::new(), generation: 0, widened: 0 }
    }

    /// Forgets all, after series ids or dictionaries have changed.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// Dictionaries start anew only when rows are taken out of the columns; call this then.
    pub(super) fn follow_dictionaries(&mut self, columns: &Columns) {
        let generation = self.key_columns.iter().map(|column| columns.column(*column).dictionary_generation()).sum();
        if generation != self.generation {
            self.generation = generation;
            self.clear();
        }
    }

    /// Where the series of a row will be looked up, whose key fields are all there.
    #[inline]
    pub(super) fn place_of(&self, columns: &Columns, row: usize) -> Place {
        Place { packed: self.pack(columns, row), widened: self.widened }
    }

    /// Begins to load the answer for a place.
    #[inline]
    pub(super) fn prefetch(&self, place: Place) {
        if let Some(packed) = place.packed {
            prefetch(&self.known, packed as usize);
        }
    }

    /// The series at a place, if it is known there.
    #[inline]
    pub(super) fn series_at(&self, place: Place) -> Option<SeriesId> {
        if place.widened != self.widened {
            return None;
        }
        self.known.get(place.packed? as usize).copied().filter(|id| *id != UNKNOWN)
    }

    /// The series of a row, of which [`Self::series_at`] knows nothing.
    #[cold]
    pub(super) fn look_up_by_text(&mut self, columns: &Columns, row: usize, windows: &mut Windows) -> SeriesId {
        let texts = self.key_columns.iter().map(|column| columns.column(*column).str_at(row).unwrap_or_default());
        let id = windows.series_id(&texts.collect::<Vec<_>>());
        self.widen(columns);
        if self.bits.iter().sum::<u32>() <= MAX_STRIDE_BITS
            && let Some(packed) = self.pack(columns, row)
        {
            let packed = packed as usize;
            if packed >= self.known.len() {
                self.known.resize((packed + 1).next_power_of_two(), UNKNOWN);
            }
            self.known[packed] = id;
        }
        id
    }

    #[inline]
    fn pack(&self, columns: &Columns, row: usize) -> Option<u32> {
        let mut packed = 0_u64;
        for (field, (column, bits)) in self.key_columns.iter().zip(&self.bits).enumerate() {
            let symbol = columns.column(*column).symbol_at(row)?;
            if field > 0 && symbol >> bits != 0 {
                return None;
            }
            packed = packed << bits | u64::from(symbol);
        }
        u32::try_from(packed).ok()
    }

    /// Makes room for symbols that were added since.
    fn widen(&mut self, columns: &Columns) {
        for field in 1..self.key_columns.len() {
            let symbols = columns.column(self.key_columns[field]).symbol_count() as u64;
            let needed = u64::BITS - symbols.saturating_sub(1).leading_zeros();
            if needed > self.bits[field] {
                self.bits[field] = needed;
                self.known.clear();
                self.widened += 1;
            }
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.known.capacity() * size_of::<SeriesId>()
    }
}
