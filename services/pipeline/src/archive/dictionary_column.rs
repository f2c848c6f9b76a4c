//! A column chunk of repeated strings, written from the dictionary keys that the decoder has made already.
//!
//! The parquet crate's own writer hashes the text of every row again to make its dictionary (apache/arrow-rs#10862):
//! half of the cost of a segment. Here a row costs a look-up of its key and some bits. Like any writer, when the
//! dictionary has grown beyond a page it goes on with plain values.

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, StringArray};
use bytes::Bytes;
use hashbrown::HashMap;
use parquet::basic::{Compression, Encoding};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescPtr;

use super::chunk::{Chunk, DataPage};
use super::hybrid;

/// Rows of a page, as the parquet crate has them.
const PAGE_ROWS: usize = 20_000;
/// Text of a dictionary, or of a page of plain values, as the parquet crate has it.
const PAGE_BYTES: usize = 1 << 20;
/// Longer values get no bounds in the statistics: a footer must stay small.
const LONGEST_BOUND: usize = 64;
/// Rows that are looked up at once: few, since a value that is new ends them.
const ROWS_AT_A_TIME: usize = 64;
/// No id yet for a key of the batch.
const UNSEEN: u32 = u32::MAX;

/// One column chunk under construction.
pub(super) struct DictionaryColumn {
    /// The dictionary of the chunk as its page will hold it: length and text of each value.
    dictionary: Vec<u8>,
    ids: HashMap<Box<str>, u32>,
    /// The dictionary is full: values are written as they are from now on.
    is_plain: bool,
    /// Ids by the keys of the last batch.
    keys: BatchKeys,
    page: OpenPage,
    /// Of all pages.
    bounds: Bounds,
    chunk: Chunk,
}

/// What the keys of a batch stand for, kept for the next batch: its dictionary mostly is the same, or a longer one.
struct BatchKeys {
    values: StringArray,
    ids: Vec<u32>,
}

/// Rows that wait to become a page.
#[derive(Default)]
struct OpenPage {
    rows: usize,
    /// 1 where the row has a value; empty as long as all rows have one.
    levels: Vec<u32>,
    ids: Vec<u32>,
    /// Values with their lengths, in place of `ids` when the dictionary is full.
    plain: Vec<u8>,
    bounds: Bounds,
    /// For each id, the number of the last page in which it was seen: bounds look at each value once.
    seen_in: Vec<u32>,
}

/// Smallest and largest value.
#[derive(Default)]
struct Bounds(Option<(Vec<u8>, Vec<u8>)>);

impl Bounds {
    fn include(&mut self, value: &[u8]) {
        match &mut self.0 {
            None => self.0 = Some((value.to_vec(), value.to_vec())),
            Some((least, _)) if value < least.as_slice() => value.clone_into(least),
            Some((_, most)) if value > most.as_slice() => value.clone_into(most),
            Some(_) => {}
        }
    }

    /// Both bounds, if they are short enough for a footer.
    fn short(&self) -> Option<(&[u8], &[u8])> {
        let (least, most) = self.0.as_ref()?;
        (least.len().max(most.len()) <= LONGEST_BOUND).then_some((least, most))
    }
}

impl DictionaryColumn {
    /// An empty chunk of a column of strings that is neither nested nor repeated.
    pub(super) fn new(descriptor: ColumnDescPtr, compression: Compression, has_page_statistics: bool) -> Self {
        Self {
            dictionary: Vec::new(),
            ids: HashMap::new(),
            is_plain: false,
            keys: BatchKeys { values: StringArray::new_null(0), ids: Vec::new() },
            page: OpenPage::default(),
            bounds: Bounds::default(),
            chunk: Chunk::new(descriptor, compression, has_page_statistics),
        }
    }

    /// Appends the rows of a dictionary array of strings.
    pub(super) fn write(&mut self, array: &ArrayRef) -> Result<()> {
        let misfit =
            || ParquetError::General(format!("a dictionary of strings was expected, not {}", array.data_type()));
        let rows = array.as_dictionary_opt::<Int32Type>().ok_or_else(misfit)?;
        self.keys.follow(rows.values().as_string_opt::<i32>().ok_or_else(misfit)?);
        let keys = rows.keys();
        let mut row = 0;
        while row < keys.len() {
            if self.page.rows == PAGE_ROWS || self.page.plain.len() >= PAGE_BYTES {
                self.end_page()?;
            }
            if keys.is_null(row) {
                self.page.push_null();
                row += 1;
                continue;
            }
            let most = row + (PAGE_ROWS - self.page.rows).min(ROWS_AT_A_TIME).min(keys.len() - row);
            let end =
                if keys.null_count() == 0 { most } else { (row..most).find(|at| keys.is_null(*at)).unwrap_or(most) };
            row += self.push_present(&keys.values()[row..end])?;
        }
        Ok(())
    }

    /// Appends the first rows of some that all have a value; how many.
    fn push_present(&mut self, keys: &[i32]) -> Result<usize> {
        let known = if self.is_plain { 0 } else { self.push_known(keys) };
        if known > 0 {
            return Ok(known);
        }
        let key = keys[0] as usize;
        if self.is_plain {
            self.push_value(key);
        } else {
            self.push_unseen(key)?;
        }
        self.page.push_present(1);
        Ok(1)
    }

    /// Appends the first rows, as long as their values were used in this batch before; how many.
    fn push_known(&mut self, keys: &[i32]) -> usize {
        let (ids, page) = (&self.keys.ids, &mut self.page);
        let before = page.ids.len();
        page.ids.extend(keys.iter().map(|key| ids[*key as usize]));
        let known = page.ids[before..].iter().position(|id| *id == UNSEEN).unwrap_or(keys.len());
        page.ids.truncate(before + known);
        page.push_present(known);
        if self.chunk.has_page_statistics() {
            for (at, key) in keys[..known].iter().enumerate() {
                self.bound_page(self.page.ids[before + at], *key as usize);
            }
        }
        known
    }

    /// Takes a value into the page's bounds.
    fn bound_page(&mut self, id: u32, key: usize) {
        let number = self.chunk.page_count() as u32 + 1;
        let seen_in = &mut self.page.seen_in[id as usize];
        if *seen_in != number {
            *seen_in = number;
            self.page.bounds.include(self.keys.values.value(key).as_bytes());
        }
    }

    /// Appends a value that this batch has not used yet.
    #[cold]
    fn push_unseen(&mut self, key: usize) -> Result<()> {
        let text = self.keys.values.value(key);
        let id = match self.ids.get(text) {
            Some(id) => *id,
            None if self.dictionary.len() + text.len() > PAGE_BYTES => {
                self.end_page()?;
                self.is_plain = true;
                self.push_value(key);
                return Ok(());
            }
            None => {
                let id = self.ids.len() as u32;
                self.ids.insert(text.into(), id);
                push_plain(text, &mut self.dictionary);
                self.bounds.include(text.as_bytes());
                self.page.seen_in.push(0);
                id
            }
        };
        self.keys.ids[key] = id;
        self.page.ids.push(id);
        if self.chunk.has_page_statistics() {
            self.bound_page(id, key);
        }
        Ok(())
    }

    /// Appends a value as it is: the dictionary is full.
    fn push_value(&mut self, key: usize) {
        let text = self.keys.values.value(key);
        push_plain(text, &mut self.page.plain);
        self.page.bounds.include(text.as_bytes());
        self.bounds.include(text.as_bytes());
    }

    fn end_page(&mut self) -> Result<()> {
        let page = &mut self.page;
        let rows = page.rows;
        if rows == 0 {
            return Ok(());
        }
        let mut body = Vec::new();
        if self.chunk.descriptor.max_def_level() > 0 {
            hybrid::push_with_length(&mut body, |body| match page.levels.as_slice() {
                [] => hybrid::push_run(1, rows, 1, body),
                levels => hybrid::encode(levels, 1, body),
            });
        }
        let encoding = if self.is_plain || page.ids.is_empty() {
            body.append(&mut page.plain);
            Encoding::PLAIN
        } else {
            let width = hybrid::width_for(self.ids.len());
            body.push(width);
            hybrid::encode(&page.ids, width, &mut body);
            Encoding::RLE_DICTIONARY
        };
        let nulls = page.levels.iter().filter(|level| **level == 0).count();
        self.chunk.add(&DataPage { body: &body, rows, nulls, encoding, bounds: page.bounds.short() })?;
        page.rows = 0;
        page.levels.clear();
        page.ids.clear();
        page.bounds = Bounds::default();
        Ok(())
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        const ENTRY: usize = size_of::<(Box<str>, u32)>() + 8;
        self.chunk.memory()
            + self.dictionary.capacity() * 2
            + self.ids.capacity() * ENTRY
            + (self.keys.ids.capacity() + self.page.ids.capacity() + self.page.levels.capacity()) * size_of::<u32>()
            + self.page.plain.capacity()
    }

    /// The chunk as bytes, and what the footer says of it.
    pub(super) fn close(mut self) -> Result<(Bytes, ColumnCloseResult)> {
        self.end_page()?;
        let bound = |value: &[u8]| ByteArray::from(value.to_vec());
        let (least, most) = self.bounds.short().map(|(least, most)| (bound(least), bound(most))).unzip();
        let statistics = Statistics::byte_array(least, most, None, Some(self.chunk.nulls), false);
        self.chunk.close(&self.dictionary, self.ids.len(), statistics)
    }
}

impl OpenPage {
    fn push_null(&mut self) {
        if self.levels.is_empty() {
            self.levels.resize(self.rows, 1);
        }
        self.levels.push(0);
        self.rows += 1;
    }

    /// Levels of so many rows that have a value.
    fn push_present(&mut self, rows: usize) {
        self.rows += rows;
        if !self.levels.is_empty() {
            self.levels.resize(self.rows, 1);
        }
    }
}

impl BatchKeys {
    /// Keeps what is known of keys whose values are still the same.
    fn follow(&mut self, values: &StringArray) {
        if !is_prefix(&self.values, values) {
            self.ids.clear();
        }
        self.ids.resize(values.len(), UNSEEN);
        self.values = values.clone();
    }
}

/// Whether `values` begins with `prefix`.
fn is_prefix(prefix: &StringArray, values: &StringArray) -> bool {
    let (of_prefix, of_values) = (prefix.value_offsets(), values.value_offsets());
    if prefix.value_data().as_ptr() == values.value_data().as_ptr() && of_prefix.as_ptr() == of_values.as_ptr() {
        return true;
    }
    // The decoder's arrays begin at their buffer's start, so that equal offsets are equal lengths.
    of_values.starts_with(of_prefix) && values.value_data().starts_with(&prefix.value_data()[..used(of_prefix)])
}

fn used(offsets: &[i32]) -> usize {
    offsets.last().map_or(0, |end| *end as usize)
}

/// A value in the plain encoding.
fn push_plain(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
