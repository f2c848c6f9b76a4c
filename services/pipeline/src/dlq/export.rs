//! Records to a file in place of the log: one JSON object a line, for other tools.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use serde_json::json;

use super::producer::Outgoing;
use crate::dead_letters::DeadLetter;
use crate::ops::advice::Advise as _;
use crate::ops::hex;

/// A file that did not exist.
#[derive(Debug)]
pub(super) struct Export(BufWriter<File>);

impl Export {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.advise(
            format!("cannot create {}", path.display()),
            "name a file that is not there yet, in a directory that is",
        )?;
        Ok(Self(BufWriter::new(file)))
    }

    /// Bytes as hexadecimal digits, null where there are none.
    pub(super) fn write(&mut self, letter: &DeadLetter, record: &Outgoing) -> anyhow::Result<()> {
        let hex = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(hex);
        let headers: Vec<_> = record.headers.iter().map(|(name, content)| json!([name, hex(content)])).collect();
        let line = json!({
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "timestamp": letter.timestamp_ms,
            "reason": letter.reason,
            "detail": letter.detail,
            "schema_id": letter.schema_id,
            "attempt": letter.attempt,
            "key_hex": hex(&record.key),
            "value_hex": hex(&record.value),
            "headers": headers,
        });
        writeln!(self.0, "{line}")?;
        Ok(())
    }

    /// All of it is on the disk, or this fails.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.0.flush()?;
        self.0.get_ref().sync_all()?;
        Ok(())
    }
}
