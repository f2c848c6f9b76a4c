//! State snapshots in the object store: create-only, compressed, named by the log position they are true at.

use bytes::Bytes;
use object_store::ObjectStoreExt as _;

use crate::archive::{snapshot_key, snapshot_prefix, start_key};
use crate::storage::{self, Created, StoreHealth, StoreRoot};

/// zstd level: the numbers hardly compress, the key texts do, and a seal waits for this.
const COMPRESSION: i32 = 1;

/// Refuses to blow up beyond this: a snapshot of ten million series.
const MAX_SNAPSHOT_BYTES: usize = 4 << 30;

/// The snapshots of one partition.
#[derive(Debug, Clone)]
pub struct Snapshots {
    root: StoreRoot,
    topic: String,
    partition: i32,
}

impl Snapshots {
    /// Those below `root`.
    pub fn new(root: StoreRoot, topic: &str, partition: i32) -> Self {
        Self { root, topic: topic.to_owned(), partition }
    }

    /// Where the snapshot at a position lies, for messages.
    pub fn key(&self, position: i64) -> object_store::path::Path {
        snapshot_key(&self.root.prefix, &self.topic, self.partition, position)
    }

    /// Stores the state at a position. It may be there already: then it is the same.
    pub async fn create(&self, position: i64, snapshot: &[u8], health: &impl StoreHealth) -> std::io::Result<Created> {
        // With its size in front, so that whoever reads it knows what to make room for.
        let compressed = Bytes::from(zstd::stream::compress_sized(snapshot, COMPRESSION, snapshot.len() as u64)?);
        Ok(storage::create(&self.root, &self.key(position), compressed, health).await)
    }

    /// The state at a position; `None` if there is none.
    pub async fn read(&self, position: i64, health: &impl StoreHealth) -> std::io::Result<Option<Vec<u8>>> {
        let Some(compressed) = storage::read(&self.root, &self.key(position), health).await else {
            return Ok(None);
        };
        decompress(&compressed).map(Some)
    }

    /// Where it is settled at which offset the partition began.
    pub fn start_key(&self) -> object_store::path::Path {
        start_key(&self.root.prefix, &self.topic, self.partition)
    }

    /// Settles for all owners, present and future, where the partition begins: at `wanted`, or where another owner has
    /// settled it before.
    ///
    /// # Errors
    /// If the object that says so holds something else.
    pub async fn settle_start(&self, wanted: i64, health: &impl StoreHealth) -> std::io::Result<i64> {
        let key = self.start_key();
        loop {
            if storage::create(&self.root, &key, Bytes::from(wanted.to_string()), health).await == Created::ByUs {
                return Ok(wanted);
            }
            let Some(found) = storage::read(&self.root, &key, health).await else { continue };
            let settled = std::str::from_utf8(&found).ok().and_then(|text| text.parse().ok());
            return settled.ok_or_else(|| std::io::Error::other("it holds no offset"));
        }
    }

    /// Positions of all snapshots, in order.
    pub async fn positions(&self, health: &impl StoreHealth) -> Vec<i64> {
        let prefix = snapshot_prefix(&self.root.prefix, &self.topic, self.partition);
        let listed = storage::patiently(&prefix, health, || self.root.store.list_with_delimiter(Some(&prefix))).await;
        let objects = listed.map(|listed| listed.objects).unwrap_or_default();
        let position = |name: &str| name.strip_suffix(".snapshot")?.parse().ok();
        let mut positions: Vec<i64> =
            objects.iter().filter_map(|object| position(object.location.filename()?)).collect();
        positions.sort_unstable();
        positions
    }

    /// Deletes a snapshot that nobody needs any more; whether it is gone. Failure is no harm, so nobody waits for success.
    pub async fn delete(&self, position: i64) -> bool {
        match self.root.store.delete(&self.key(position)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => true,
            Err(error) => {
                tracing::debug!(partition = self.partition, position, %error, "an old snapshot was not deleted");
                false
            }
        }
    }
}

/// A snapshot as it was before it was stored.
pub fn decompress(compressed: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut snapshot = Vec::new();
    let mut decoder = zstd::Decoder::new(compressed)?.take(MAX_SNAPSHOT_BYTES as u64);
    decoder.read_to_end(&mut snapshot)?;
    Ok(snapshot)
}
