//! Who takes the records out of the log. All else of ingest is the same for both.

use std::sync::Arc;

use rdkafka::error::KafkaResult;
use tracing::{debug, info};

use super::batch_queue::{BatchQueue, MessageBuffer};
use super::group_member::{Assignment, GroupMember};
use super::librdkafka_fetcher::LibrdkafkaFetcher;
use super::native_fetcher::{NativeFetcher, unsupported_by_native_fetcher};
use super::shared::{Client, Shared, Slot};
use crate::config::{FetcherChoice, KafkaConfig};

/// Who fetches.
pub(super) enum Fetcher {
    Librdkafka(LibrdkafkaFetcher),
    Native(NativeFetcher),
}

impl Fetcher {
    /// The one that the configuration asks for. The ingest thread has to call [`Self::take`].
    ///
    /// # Errors
    /// If the native one is asked for and cannot do what the properties demand.
    pub(super) fn start(
        config: &KafkaConfig,
        client: &Arc<Client>,
        queue: &Arc<BatchQueue<GroupMember>>,
        shared: &Arc<Shared>,
    ) -> anyhow::Result<Self> {
        match (config.fetcher, unsupported_by_native_fetcher(&config.properties)) {
            (FetcherChoice::Native, Some(reason)) => {
                anyhow::bail!("kafka.fetcher = \"native\" cannot be used: {reason}")
            }
            (FetcherChoice::Auto | FetcherChoice::Native, None) => {
                info!("records are fetched by the native fetcher");
                NativeFetcher::start(config, shared).map(Self::Native)
            }
            (FetcherChoice::Auto, Some(reason)) => {
                info!("records are fetched by librdkafka, because of kafka.properties.{reason}");
                Ok(Self::Librdkafka(LibrdkafkaFetcher::new(client, queue, shared)))
            }
            (FetcherChoice::Librdkafka, _) => {
                info!("records are fetched by librdkafka");
                Ok(Self::Librdkafka(LibrdkafkaFetcher::new(client, queue, shared)))
            }
        }
    }

    /// Fetches a partition from `offset` on; what is delivered from then on carries `epoch`. An error means: not yet.
    pub(super) fn seek(&self, assignment: &Assignment, epoch: u64, offset: i64) -> KafkaResult<()> {
        match self {
            Self::Librdkafka(fetcher) => fetcher.seek(assignment.slot.partition, offset),
            Self::Native(fetcher) => {
                fetcher.seek(assignment.outlet(epoch), offset);
                Ok(())
            }
        }
    }

    /// Fetches nothing of a partition for a while, or goes on. The native one sees it from the partition's slot.
    pub(super) fn set_paused(&self, partition: i32, paused: bool) -> KafkaResult<()> {
        match self {
            Self::Librdkafka(fetcher) => fetcher.set_paused(partition, paused),
            Self::Native(_) => Ok(()),
        }
    }

    /// Fetches nothing any more of a partition.
    pub(super) fn forget(&self, slot: &Arc<Slot>) {
        match self {
            Self::Librdkafka(fetcher) => {
                if let Err(error) = fetcher.set_paused(slot.partition, true) {
                    debug!(partition = slot.partition, "could not be paused: {error}");
                }
            }
            Self::Native(fetcher) => fetcher.forget(slot),
        }
    }

    /// Delivers what librdkafka has ready; whether there was anything. The native one delivers by itself.
    pub(super) fn take(&self, buffer: &mut MessageBuffer) -> bool {
        match self {
            Self::Librdkafka(fetcher) => fetcher.take(buffer),
            Self::Native(_) => false,
        }
    }
}
