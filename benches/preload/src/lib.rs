//! What the programs of the drain benchmark have in common.

/// The topic, and how much is in it.
#[derive(Debug, clap::Args)]
pub struct TopicArguments {
    /// Addresses of brokers.
    #[arg(long)]
    pub brokers: String,
    /// Its name.
    #[arg(long)]
    pub topic: String,
    /// How many partitions it has.
    #[arg(long, default_value_t = 12)]
    pub partitions: i32,
    /// How many records.
    #[arg(long, default_value_t = 6_000_000)]
    pub events: u64,
}
