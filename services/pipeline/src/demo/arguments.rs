//! The options of `kappa demo`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  kappa demo                              until q or Ctrl-C, 50,000 events a second
  kappa demo --for 60s                    a minute; fit for CI, exit code 1 if any count differs
  kappa demo --rate 5000 --sensors 1000   gentler
  kappa demo --for 2m --http 127.0.0.1:9464 --keep
                                          with /metrics and /status at a fixed port; the last demo's data is kept
  kappa demo --for 60s --evolve           the schema changes under load; nothing stops, and all is found again
  kappa demo --stack-only                 no fleet and no pipeline, only what it talks to; then, elsewhere,
  kappa run -c target/demo/kappa.toml     a pipeline on it (after `kappa migrate`, with the same -c)

Ctrl-C or q ends the sending, seals and compares; a second one ends at once, without the comparison.

It needs no Kafka, no S3 and no ClickHouse: it brings librdkafka's mock cluster, a schema registry, a directory and the
ClickHouse engine (a Python package, installed at the first time). Everything it writes lies below --dir.";

/// A live fleet of sensors through the whole pipeline on this machine, and a summary that proves the counts.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArguments {
    /// Events a second.
    #[arg(long, default_value_t = 50_000, value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    pub rate: u32,

    /// Sensors in the fleet, each with one to three metrics.
    #[arg(long, default_value_t = 10_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sensors: u32,

    /// End by itself after this long, such as 60s or 5m [default: until q or Ctrl-C].
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Where everything is kept. What an earlier demo left there is deleted.
    #[arg(long, default_value = "target/demo", value_name = "DIRECTORY")]
    pub dir: PathBuf,

    /// Move what an earlier demo left aside instead of deleting it.
    #[arg(long)]
    pub keep: bool,

    /// The same seed gives the same fleet and the same measurements.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub seed: u64,

    /// Partitions of the topic.
    #[arg(long, default_value_t = 12, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub partitions: u16,

    /// After a third of the time (20 s at the latest) register the next version of the schema, and let every second sensor
    /// write by it while the others go on. What they sent is compared as well.
    #[arg(long)]
    pub evolve: bool,

    /// Only start what the pipeline talks to, and wait for Ctrl-C. Once all of it answers, DIR/env names its addresses,
    /// and DIR/kappa.toml is the configuration of a pipeline on it.
    #[arg(long, conflicts_with_all = ["rate", "sensors", "duration", "seed", "evolve"])]
    pub stack_only: bool,

    /// A Python that has chdb-core [default: an environment that is made at the first time].
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,

    /// Where the pipeline serves /metrics, /status, /healthz and /readyz; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub http: SocketAddr,

    /// Where the live page is served [default: 127.0.0.1:8088, or a free port where that is taken].
    #[arg(long, value_name = "ADDRESS")]
    pub page: Option<SocketAddr>,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime_serde::re::humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("must be longer than nothing".to_owned()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        demo: DemoArguments,
    }

    #[test]
    fn options_have_their_defaults_and_limits() {
        let demo = Program::try_parse_from(["kappa"]).map(|program| program.demo).unwrap();
        assert_eq!((demo.rate, demo.sensors, demo.partitions, demo.duration), (50_000, 10_000, 12, None));
        let demo = Program::try_parse_from(["kappa", "--for", "90s"]).map(|program| program.demo).unwrap();
        assert_eq!(demo.duration, Some(Duration::from_secs(90)));
        assert!(Program::try_parse_from(["kappa", "--for", "soon"]).is_err());
        assert!(Program::try_parse_from(["kappa", "--rate", "0"]).is_err());
        assert!(Program::try_parse_from(["kappa", "--stack-only", "--partitions", "3"]).is_ok());
        assert!(Program::try_parse_from(["kappa", "--stack-only", "--rate", "5"]).is_err());
    }
}
