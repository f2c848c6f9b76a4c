//! Goes through the dead letters of a topic: some objects at a time, whatever the bucket holds.

use anyhow::Context as _;
use futures::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;

use super::selection::{Address, Selection};
use crate::archive::{FooterError, read_metadata};
use crate::config::Config;
use crate::dead_letters::{DeadLetter, letters_of};
use crate::ops::advice::advised;
use crate::ops::object_stores;
use crate::storage::StoreRoot;
use crate::verify::listing::{ListedObject, list_segments, read, retried};
use crate::verify::require_place;

/// Objects that are fetched ahead.
const READ_AHEAD: usize = 4;

/// Dead letters that lie next to one another.
#[derive(Debug)]
pub(super) struct LetterBatch {
    /// How many were read, also those that the selection does not include.
    pub(super) read: u64,
    /// Those that it includes.
    pub(super) letters: Vec<DeadLetter>,
}

/// The dead letters of one topic.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub(super) root: StoreRoot,
    pub(super) topic: String,
}

impl Bucket {
    /// Opens the place that the configuration names.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        require_place("dead_letter.url", &config.dead_letter.url)?;
        let root = object_stores::open(&config.dead_letter.url, &config.object_store).context("dead_letter.url")?;
        Ok(Self { root, topic: config.kafka.topic.clone() })
    }

    /// The objects that may hold dead letters of the selection, by partition and offset.
    pub(super) async fn objects(&self, selection: &Selection) -> anyhow::Result<Vec<ListedObject>> {
        let mut objects = list_segments(&self.root, &self.topic).await?.objects;
        objects.retain(|object| selection.needs(object));
        objects.sort_by_key(|object| (object.partition, object.start));
        if !selection.addresses.is_empty() {
            // Of each address the last object that begins before it.
            let holds = |object: &ListedObject, next: Option<&ListedObject>| {
                let end = next.filter(|next| next.partition == object.partition).map_or(i64::MAX, |next| next.start);
                let (from, to) = (object.start, end.saturating_sub(1));
                let address = |offset| Address { partition: object.partition, offset };
                selection.addresses.range(address(from)..=address(to.max(from))).next().is_some()
            };
            let next = objects.iter().skip(1).map(Some).chain([None]);
            let wanted: Vec<bool> = objects.iter().zip(next).map(|(object, next)| holds(object, next)).collect();
            let mut wanted = wanted.into_iter();
            objects.retain(|_| wanted.next().unwrap_or(false));
        }
        Ok(objects)
    }

    /// How many dead letters these objects hold, by their footers.
    pub(super) async fn count(&self, objects: &[ListedObject]) -> anyhow::Result<u64> {
        let counts = stream::iter(objects).map(|object| self.count_of(object)).buffer_unordered(READ_AHEAD);
        counts.try_fold(0, async |sum, count| Ok(sum + count)).await
    }

    async fn count_of(&self, object: &ListedObject) -> anyhow::Result<u64> {
        let ListedObject { key, size, .. } = object;
        match retried(key, || read_metadata(&self.root.store, key, *size), FooterError::is_passing).await {
            Ok(metadata) => Ok(metadata.file_metadata().num_rows().max(0) as u64),
            Err(FooterError::Store(object_store::Error::NotFound { .. })) => Ok(0),
            Err(error @ FooterError::Store(_)) => Err(error.into()),
            Err(error) => Err(unreadable(key, &error.to_string())),
        }
    }

    /// The dead letters of these objects that the selection includes, in order.
    pub(super) fn letters<'a>(
        &'a self,
        objects: Vec<ListedObject>,
        selection: &'a Selection,
    ) -> impl Stream<Item = anyhow::Result<LetterBatch>> + 'a {
        let contents = stream::iter(objects).map(async |object| {
            let content = read(&self.root, &object.key).await?;
            anyhow::Ok((object.key, content))
        });
        let batches = contents.buffered(READ_AHEAD).map_ok(move |(key, content)| {
            // One that was purged meanwhile has none.
            let letters = content.map(letters_of).transpose();
            let unreadable = move |sentence: String| unreadable(&key, &sentence);
            let batches: Vec<anyhow::Result<_>> = match letters {
                Err(sentence) => vec![Err(unreadable(sentence))],
                Ok(None) => Vec::new(),
                Ok(Some(batches)) => {
                    return stream::iter(batches).map(move |batch| batch.map_err(&unreadable)).boxed_local();
                }
            };
            stream::iter(batches).boxed_local()
        });
        batches.try_flatten().map_ok(move |mut letters| {
            let read = letters.len() as u64;
            letters.retain(|letter| selection.includes(letter));
            LetterBatch { read, letters }
        })
    }

    /// The dead letter of one record.
    pub async fn letter(&self, address: Address) -> anyhow::Result<DeadLetter> {
        let selection = Selection::of([address]);
        let objects = self.objects(&selection).await?;
        let mut letters = std::pin::pin!(self.letters(objects, &selection));
        while let Some(batch) = letters.try_next().await? {
            if let Some(letter) = batch.letters.into_iter().next() {
                return Ok(letter);
            }
        }
        Err(advised(
            format!("there is no dead letter {address} of the topic {}", self.topic),
            "`kappa dlq list --samples 5` shows some that are there; a record is written PARTITION/OFFSET",
        ))
    }
}

fn unreadable(key: &Path, sentence: &str) -> anyhow::Error {
    let advice = "`kappa verify` says what else is damaged; put it back from the bucket's versions";
    advised(format!("dead letters {key}: {sentence}"), advice)
}
