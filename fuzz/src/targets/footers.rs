//! Readers of what lies in the archive.

use std::sync::Arc;

use arrow_array::{Int32Array, RecordBatch};
use arrow_schema::{DataType, Field};
use bytes::Bytes;
use futures::executor::block_on;
use kappa_core::partition::RejectedOffsets;
use kappa_core::reject::Reason;
use kappa_pipeline::archive::{SegmentFooter, read_footer};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::MIB;
use crate::fuzzer::Target;

/// An object where a segment should be.
#[derive(Debug)]
pub struct Footer {
    store: Arc<dyn ObjectStore>,
}

impl Footer {
    /// In memory.
    pub fn new() -> Self {
        Self { store: Arc::new(InMemory::new()) }
    }
}

impl Default for Footer {
    fn default() -> Self {
        Self::new()
    }
}

impl Target for Footer {
    fn name(&self) -> &'static str {
        "footer"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut rejected = RejectedOffsets::default();
        rejected.push(7, &Reason::BadMagic);
        let footer = SegmentFooter {
            topic: "readings".to_owned(),
            partition: 3,
            start: 5,
            end: 12,
            rows: 6,
            sequence: None,
            duplicates: Some(0),
            rejected,
            digest: "00112233445566778899aabbccddeeff".to_owned(),
            reader_schema: "{}".to_owned(),
            contract: None,
        };
        let properties = WriterProperties::builder().set_key_value_metadata(Some(footer.key_values())).build();
        let schema = Arc::new(arrow_schema::Schema::new(vec![Field::new("a", DataType::Int32, false)]));
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, Arc::clone(&schema), Some(properties)).expect("a writer");
        let column = Arc::new(Int32Array::from(vec![1, 2, 3]));
        writer.write(&RecordBatch::try_new(schema, vec![column]).expect("a batch")).expect("a row group");
        writer.close().expect("a file");
        vec![file, b"PAR1PAR1PAR1".to_vec(), vec![0; 12]]
    }

    #[allow(clippy::disallowed_methods, reason = "one object in memory after the other, under one key")]
    fn run(&self, input: &[u8]) -> String {
        let key = Path::from("segment");
        let read = async {
            self.store.put(&key, Bytes::copy_from_slice(input).into()).await?;
            read_footer(&self.store, &key).await
        };
        match block_on(read) {
            Ok(footer) => format!("read, {} rejects", footer.rejected.count().min(2)),
            Err(error) => error.to_string(),
        }
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        16 * MIB + 1_000 * input.len()
    }
}

/// The list of rejects in a footer.
#[derive(Debug)]
pub struct RejectedInFooter;

impl Target for RejectedInFooter {
    fn name(&self) -> &'static str {
        "rejects"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        vec![
            br#"[[5,1,"bad_magic"],[9,3,"tombstone"]]"#.to_vec(),
            b"[]".to_vec(),
            br#"[[9223372036854775807,1,"too_deep"]]"#.to_vec(),
        ]
    }

    fn run(&self, input: &[u8]) -> String {
        let text = String::from_utf8_lossy(input);
        let Some(rejected) = RejectedOffsets::from_json(&text) else { return "none".to_owned() };
        let again = RejectedOffsets::from_json(&rejected.to_json());
        assert_eq!(again.as_ref(), Some(&rejected), "what was read is written the same");
        _ = (rejected.count(), rejected.reason_of(0), rejected.reason_of(i64::MAX), rejected.reason_of(i64::MIN));
        rejected.to_json()
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        MIB + 1_000 * input.len()
    }
}
