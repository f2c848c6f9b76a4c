//! A column chunk as the file will have it: its pages, and what the footer says of them.
//!
//! Pages as of parquet-format, `README.md` "Data Pages" and `Encodings.md`: version 1, a dictionary page in front if a data
//! page refers to it.

use std::cell::RefCell;
use std::io::Write as _;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, EncodingMask, PageType};
use parquet::column::page::{CompressedPage, Page, PageWriter as _};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// Data pages that are done, and what the metadata will say of them.
pub(super) struct Chunk {
    pub(super) descriptor: ColumnDescPtr,
    /// Rows without a value so far.
    pub(super) nulls: u64,
    compression: Compression,
    pages: TrackedWrite<Vec<u8>>,
    offsets: Vec<(i64, i32)>,
    page_rows: Vec<i64>,
    /// `None` where the column has no page statistics.
    index: Option<ColumnIndexBuilder>,
    dictionary_pages: i32,
    plain_pages: i32,
    rows: u64,
    uncompressed_bytes: usize,
}

/// A data page, not compressed yet.
pub(super) struct DataPage<'a> {
    /// Levels and values.
    pub(super) body: &'a [u8],
    pub(super) rows: usize,
    pub(super) nulls: usize,
    /// Of the values: [`Encoding::RLE_DICTIONARY`] or [`Encoding::PLAIN`].
    pub(super) encoding: Encoding,
    /// Smallest and largest value, if they are short enough for a footer.
    pub(super) bounds: Option<(&'a [u8], &'a [u8])>,
}

impl Chunk {
    pub(super) fn new(descriptor: ColumnDescPtr, compression: Compression, has_page_statistics: bool) -> Self {
        Self {
            index: has_page_statistics.then(|| ColumnIndexBuilder::new(descriptor.physical_type())),
            descriptor,
            nulls: 0,
            compression,
            pages: TrackedWrite::new(Vec::new()),
            offsets: Vec::new(),
            page_rows: Vec::new(),
            dictionary_pages: 0,
            plain_pages: 0,
            rows: 0,
            uncompressed_bytes: 0,
        }
    }

    pub(super) fn page_count(&self) -> usize {
        self.offsets.len()
    }

    pub(super) fn has_page_statistics(&self) -> bool {
        self.index.is_some()
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.pages.inner().capacity()
    }

    pub(super) fn add(&mut self, page: &DataPage<'_>) -> Result<()> {
        let DataPage { body, rows, nulls, encoding, bounds } = *page;
        *(if encoding == Encoding::PLAIN { &mut self.plain_pages } else { &mut self.dictionary_pages }) += 1;
        let page = Page::DataPage {
            buf: compress(self.compression, body)?,
            num_values: rows as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let written = SerializedPageWriter::new(&mut self.pages).write_page(CompressedPage::new(page, body.len()))?;
        self.offsets.push((written.offset as i64, written.compressed_size as i32));
        self.page_rows.push(rows as i64);
        self.uncompressed_bytes += written.uncompressed_size;
        self.rows += rows as u64;
        self.nulls += nulls as u64;
        if let Some(index) = &mut self.index {
            match bounds {
                Some((least, most)) => index.append(false, least.to_vec(), most.to_vec(), nulls as i64, None),
                None if nulls == rows => index.append(true, Vec::new(), Vec::new(), nulls as i64, None),
                None => index.to_invalid(),
            }
        }
        Ok(())
    }

    /// The chunk as bytes, and what the footer says of it. `dictionary`: the plain values that pages refer to, and how many.
    pub(super) fn close(
        mut self,
        dictionary: &[u8],
        values: usize,
        statistics: Statistics,
    ) -> Result<(Bytes, ColumnCloseResult)> {
        let mut file = TrackedWrite::new(Vec::with_capacity(self.pages.bytes_written()));
        let has_dictionary = self.dictionary_pages > 0;
        if has_dictionary {
            let page = Page::DictionaryPage {
                buf: compress(self.compression, dictionary)?,
                num_values: values as u32,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            };
            let page = CompressedPage::new(page, dictionary.len());
            self.uncompressed_bytes += SerializedPageWriter::new(&mut file).write_page(page)?.uncompressed_size;
        }
        let data_offset = file.bytes_written() as i64;
        self.pages.flush()?;
        file.write_all(self.pages.inner())?;
        let length = file.bytes_written();
        let result = self.describe(has_dictionary.then_some(0), data_offset, length, statistics)?;
        Ok((file.into_inner()?.into(), result))
    }

    fn describe(
        self,
        dictionary_offset: Option<i64>,
        data_offset: i64,
        length: usize,
        statistics: Statistics,
    ) -> Result<ColumnCloseResult> {
        let pages = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let encodings = [
            pages(PageType::DICTIONARY_PAGE, Encoding::PLAIN, i32::from(dictionary_offset.is_some())),
            pages(PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, self.dictionary_pages),
            pages(PageType::DATA_PAGE, Encoding::PLAIN, self.plain_pages),
        ];
        let encodings: Vec<_> = encodings.into_iter().filter(|pages| pages.count > 0).collect();
        let used = encodings.iter().map(|pages| &pages.encoding).chain(&[Encoding::RLE]);
        let metadata = ColumnChunkMetaData::builder(self.descriptor)
            .set_compression(self.compression)
            .set_encodings_mask(EncodingMask::new_from_encodings(used))
            .set_page_encoding_stats(encodings.clone())
            .set_total_compressed_size(length as i64)
            .set_total_uncompressed_size(self.uncompressed_bytes as i64)
            .set_num_values(self.rows as i64)
            .set_data_page_offset(data_offset)
            .set_dictionary_page_offset(dictionary_offset)
            .set_statistics(statistics)
            .build()?;
        let mut offset_index = OffsetIndexBuilder::new();
        for ((offset, size), rows) in self.offsets.into_iter().zip(self.page_rows) {
            offset_index.append_offset_and_size(data_offset + offset, size);
            offset_index.append_row_count(rows);
        }
        Ok(ColumnCloseResult {
            bytes_written: length as u64,
            rows_written: self.rows,
            metadata,
            bloom_filter: None,
            column_index: self.index.filter(ColumnIndexBuilder::valid).map(ColumnIndexBuilder::build).transpose()?,
            offset_index: Some(offset_index.build()),
        })
    }
}

thread_local! {
    /// One for all columns that a thread encodes. Its tables take half a MiB, and each partition has a file open.
    static COMPRESSOR: RefCell<zstd::bulk::Compressor<'static>> = RefCell::default();
}

fn compress(compression: Compression, page: &[u8]) -> Result<Bytes> {
    match compression {
        Compression::UNCOMPRESSED => Ok(Bytes::copy_from_slice(page)),
        Compression::ZSTD(level) => COMPRESSOR.with_borrow_mut(|compressor| {
            compressor.set_compression_level(level.compression_level())?;
            Ok(compressor.compress(page)?.into())
        }),
        other => Err(ParquetError::NYI(format!("{other} is not used here"))),
    }
}
