//! The command line: `kappa run | migrate | verify | dlq | schema | contract | config | doctor | health | metrics | demo`.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong configuration or use. What a command has to say goes to standard output, logs
//! and errors to standard error.

mod configuration;
mod contract;
mod dlq;
mod health;
mod logging;
mod schema;
mod verify;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use kappa_core::decode::ReaderSchema;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, ConfigurationError, Needs, Sources};
use crate::demo::{self, DemoArguments};
use crate::ops::advice::render;
use crate::ops::metrics::{self, TableFormat};
use crate::ops::traces::Traces;
use crate::ops::{doctor, migrate};
use crate::run::Application;
use configuration::{ConfigArguments, ConfigCommand};
use contract::ContractCommand;
use dlq::DlqCommand;
use health::HealthArguments;
use logging::LoggingArguments;
use schema::SchemaCommand;
use verify::VerifyArguments;

/// Wrong configuration or use; clap exits with the same.
const WRONG_USE: u8 = 2;

/// A use that cannot be meant, found too late for clap to say so.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUse(String);

/// Threads for what waits for the network. The record path has its own.
const ASYNC_THREADS: usize = 2;

const EXAMPLES: &str = "\
Examples:
  kappa demo                        everything on this machine, nothing to install
  kappa config print                every key with its default and meaning
  kappa doctor -c kappa.toml        is everything there and allowed?
  kappa migrate -c kappa.toml       create the tables in ClickHouse
  kappa run -c kappa.toml           run until SIGTERM
  kappa verify -c kappa.toml        is what was written what the log says?
  kappa dlq list -c kappa.toml      which records were refused, and why?

Configuration: flags over environment (KAPPA__KAFKA__BROKERS) over the TOML file over defaults.
Exit codes: 0 done, 1 failed, 2 wrong configuration or use.";

/// Sensor events from Kafka to ClickHouse, Parquet on S3, and dead letters: exact, whatever fails.
#[derive(Debug, Parser)]
#[command(name = "kappa", version, after_help = EXAMPLES, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    logging: LoggingArguments,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(RunArguments),
    Migrate(MigrateArguments),
    Verify(VerifyArguments),
    /// Look at refused records, and send them again once their cause is mended.
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Check a schema before it is registered, register it, and see what has changed.
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Check the data contract, or make a page of it.
    #[command(subcommand)]
    Contract(ContractCommand),
    /// Check the configuration, or show it.
    #[command(subcommand)]
    Config(ConfigCommand),
    Doctor(DoctorArguments),
    Health(HealthArguments),
    Metrics(MetricsArguments),
    Demo(DemoArguments),
}

const RUN_EXAMPLES: &str = "\
Examples:
  kappa run -c kappa.toml
  kappa run -b broker-1:9092,broker-2:9092 -t readings -s limits.memory=2GiB
  KAPPA__HOT_STORE__URL=http://clickhouse:8123 kappa run -c kappa.toml

SIGTERM or Ctrl-C: seals what is open, commits, and leaves within pipeline.shutdown_timeout. A second one leaves at
once; what was not sealed is replayed by the next start.";

/// Run the pipeline until SIGTERM.
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
struct RunArguments {
    #[command(flatten)]
    config: ConfigArguments,
}

const MIGRATE_EXAMPLES: &str = "\
Examples:
  kappa migrate -c kappa.toml
  kappa migrate -s hot_store.url=http://localhost:8123 --wait 60s

Needs only [hot_store] and [event]. Running it again, or twice at once, does no harm.";

/// Create or update the tables in ClickHouse.
#[derive(Debug, Args)]
#[command(after_help = MIGRATE_EXAMPLES)]
struct MigrateArguments {
    #[command(flatten)]
    config: ConfigArguments,

    /// Wait so long for ClickHouse to answer.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime_serde::re::humantime::parse_duration)]
    wait: Duration,
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  kappa doctor -c kappa.toml
  kappa doctor -c kappa.toml --json | jq '.checks[] | select(.outcome != \"ok\")'

Writes nothing but a small object in each place for objects, which it deletes again.
Exit code 1 if the pipeline would not work.";

/// Ask everything that the pipeline depends on, and say what is wrong and what to do.
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
struct DoctorArguments {
    #[command(flatten)]
    config: ConfigArguments,

    /// For programs.
    #[arg(long)]
    json: bool,
}

const METRICS_EXAMPLES: &str = "\
Examples:
  kappa metrics > docs/metrics.md
  kappa metrics --format json | jq -r '.[].name'

What a running pipeline has measured is at its own address: curl http://127.0.0.1:9464/metrics";

/// Print the table of all metrics that the pipeline exports: name, type, unit, labels, meaning.
#[derive(Debug, Args)]
#[command(after_help = METRICS_EXAMPLES)]
struct MetricsArguments {
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = TableFormat::Markdown)]
    format: TableFormat,
}

/// Everything that `main` does.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = prepare(&cli).and_then(|_traces| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(ASYNC_THREADS).enable_all().build().context("cannot start the runtime")?;
        let outcome = runtime.block_on(dispatch(cli.command));
        // A blocking call into librdkafka must not hold the exit up.
        runtime.shutdown_timeout(Duration::from_secs(1));
        outcome
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // There is nowhere left to say that standard error is closed.
            let _ = writeln!(std::io::stderr(), "{}", render(&error));
            let is_wrong_use = error.is::<ConfigurationError>() || error.is::<WrongUse>();
            ExitCode::from(if is_wrong_use { WRONG_USE } else { 1 })
        }
    }
}

fn prepare(cli: &Cli) -> anyhow::Result<Traces> {
    let config = match &cli.command {
        // Its screen is no place for logs; it writes them to a file.
        Command::Demo(_) => return Ok(Traces::none()),
        Command::Run(arguments) => arguments.config.load(Needs::Nothing),
        Command::Migrate(arguments) => arguments.config.load(Needs::Nothing),
        Command::Doctor(arguments) => arguments.config.load(Needs::Nothing),
        Command::Verify(arguments) => arguments.config.load(Needs::Nothing),
        Command::Dlq(_)
        | Command::Schema(_)
        | Command::Contract(_)
        | Command::Config(_)
        | Command::Health(_)
        | Command::Metrics(_) => Sources::default().load(Needs::Nothing),
    };
    // One that is wrong is the command's own to report.
    let config = config.or_else(|_| Sources::default().load(Needs::Nothing))?;
    cli.logging.install(&config.config.log)
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(arguments) => run(&arguments).await,
        Command::Migrate(arguments) => run_migrations(&arguments).await,
        Command::Verify(arguments) => Box::pin(verify::run(&arguments)).await,
        Command::Dlq(command) => Box::pin(dlq::dispatch(command)).await,
        Command::Schema(command) => schema::dispatch(command).await,
        Command::Contract(command) => contract::dispatch(&command),
        Command::Config(command) => configuration::dispatch(&command),
        Command::Doctor(arguments) => Box::pin(examine(&arguments)).await,
        Command::Health(arguments) => health::ask(&arguments).await,
        Command::Metrics(arguments) => print_metrics(&arguments),
        Command::Demo(arguments) => demo::run(arguments).await,
    }
}

async fn run(arguments: &RunArguments) -> anyhow::Result<ExitCode> {
    // First of all, so that whatever is waited for, a stop is clean.
    let stop = stop_signal()?;
    let config = arguments.config.load(Needs::Everything)?.config;
    crate::contract::in_force(&config, &checked_reader_schema(&config)?)?;
    let application = Application::build(config).await?;
    tracing::info!(address = %application.http_address(), "serving /metrics, /healthz, /readyz and /status");
    application.run_until_stopped(stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// Ends with the first SIGTERM or SIGINT; the process ends with the second.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(async move {
        next().await;
        tracing::info!("stopping: sealing what is open; once more to leave at once");
        tokio::spawn(async move {
            next().await;
            tracing::warn!("leaving at once: what was not sealed is replayed by the next start");
            std::process::exit(1);
        });
    })
}

async fn run_migrations(arguments: &MigrateArguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load(Needs::HotStore)?.config;
    migrate::wait_for_clickhouse(&config.hot_store, arguments.wait).await?;
    let report = migrate::migrate(&config.hot_store, &config.event.key).await?;
    for name in &report.already {
        println!("there     {name}");
    }
    for name in &report.applied {
        println!("applied   {name}");
    }
    if !report.newer.is_empty() {
        println!("unknown   {:?}: a newer version of kappa was here", report.newer);
    }
    println!("{} is up to date", config.hot_store.database);
    Ok(ExitCode::SUCCESS)
}

async fn examine(arguments: &DoctorArguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load(Needs::Everything)?.config;
    let diagnosis = doctor::examine(&config).await;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&diagnosis)?);
    } else {
        println!("{diagnosis}");
    }
    Ok(if diagnosis.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_metrics(arguments: &MetricsArguments) -> anyhow::Result<ExitCode> {
    print!("{}", metrics::document(arguments.format)?);
    Ok(ExitCode::SUCCESS)
}

/// The reader schema, with the fields that the configuration names.
fn checked_reader_schema(config: &Config) -> anyhow::Result<ReaderSchema> {
    let reader =
        ReaderSchema::parse(&config.reader_schema()?).context("the reader schema (event.schema) is not usable")?;
    config.validate_against(&reader)?;
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_each_command_has_examples() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        let mut commands: Vec<_> = cli.get_subcommands().cloned().collect();
        while let Some(command) = commands.pop() {
            if command.get_name() == "help" {
                continue;
            }
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
            let inner: Vec<_> = command.get_subcommands().cloned().collect();
            let examples = command.get_after_help().is_some_and(|help| help.to_string().contains("Examples:"));
            assert!(examples || !inner.is_empty(), "{} has no examples", command.get_name());
            commands.extend(inner);
        }
    }

    #[test]
    fn flags_become_configuration() {
        let arguments =
            ["kappa", "run", "-b", "a:1,b:2", "-t", "readings", "-s", "limits.memory=2GiB", "-l", "127.0.0.1:0"];
        let Command::Run(run) = Cli::try_parse_from(arguments).unwrap().command else { panic!("not run") };
        let config = run.config.load(Needs::Nothing).unwrap().config;
        assert_eq!((config.kafka.brokers.len(), config.kafka.topic.as_str()), (2, "readings"));
        assert_eq!((config.limits.memory, config.http.listen.port()), (2 << 30, 0));
        assert!(Cli::try_parse_from(["kappa", "run", "--set", "no-equals-sign"]).is_err());
    }
}
