//! The command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use humantime_serde::re::humantime::parse_duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use url::Url;

use crate::bench::{Bench, Place};
use crate::calibrate;
use crate::compare::{compare, read_figures, table};
use crate::cost::{self, Prices};
use crate::find_max::{self, Search};
use crate::local_stack::LocalStack;
use crate::progress::say;
use crate::repository::find_repository;
use crate::scenario::{Scenario, ScenarioError, Scenarios};
use crate::target::Target;

/// Exit code of a wrong use.
const WRONG_USE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  kappa-loadtest run                                     50,000 events/s for five minutes on a local stack of its own
  kappa-loadtest run spike --rate 20000 --for 2m
  kappa-loadtest run --target embedded                   on what `kappa demo` brings along: no Java, no Go
  kappa-loadtest run mine --file my-scenarios.toml --compare target/load/baseline.json
  kappa-loadtest run steady --config kappa.toml --status-url http://kappa-0:9464 --status-url http://kappa-1:9464
  kappa-loadtest find-max --from 50000 --precision 0.05
  kappa-loadtest calibrate                               what the generator and Kafka can take without a pipeline
  kappa-loadtest cost
  kappa-loadtest scenarios

Exit codes: 0 every gate is passed, 1 one is not, 2 wrong use, 3 not valid: the generator or Kafka
was the limit, not the pipeline.";

/// An open-loop load harness: sends on schedule whatever the system does, measures from the user's side, judges by
/// gates, and writes a report.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(RunArguments),
    FindMax(FindMaxArguments),
    Calibrate(CalibrateArguments),
    Cost(CostArguments),
    Scenarios(ScenariosArguments),
}

const RUN_EXAMPLES: &str = "\
Examples:
  kappa-loadtest run
  kappa-loadtest run everything --rate 10000 --for 3m
  kappa-loadtest run steady --config kappa.toml --pid kappa=4711

On the embedded target the broker is a mock in memory and the object store a directory: nothing is told about durability,
outages, S3, or the limits of a real Kafka. Against a cluster (--config): the topic must exist and get nothing else meanwhile, and the pipeline must run. What is
told from outside is optional: without a --pid nothing is known of CPU and memory.
Ctrl-C ends early, with a report of what was measured.";

/// Run a scenario; writes target/load/report.html and report.json.
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
struct RunArguments {
    /// Which; `kappa-loadtest scenarios` lists them.
    #[arg(default_value = "steady")]
    scenario: String,

    #[command(flatten)]
    common: CommonArguments,

    /// How long; the shape is stretched to it.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,

    /// Events a second.
    #[arg(long)]
    rate: Option<f64>,

    /// Print each figure with its change since this report.json.
    #[arg(long, value_name = "REPORT.JSON")]
    compare: Option<PathBuf>,
}

const FIND_MAX_EXAMPLES: &str = "\
Examples:
  kappa-loadtest find-max
  kappa-loadtest find-max --scenario skew --from 20000 --to 400000 --step 20s --precision 0.05

A rate is sustained if every gate of the scenario is passed: the lag does not grow, latency, memory, drain and counts.";

/// Find the highest rate that is sustained: doubling, then bisection, in short steps.
#[derive(Debug, Args)]
#[command(after_help = FIND_MAX_EXAMPLES)]
struct FindMaxArguments {
    /// What is sent and judged.
    #[arg(long, default_value = "steady")]
    scenario: String,

    #[command(flatten)]
    common: CommonArguments,

    /// The rate to begin with.
    #[arg(long, default_value_t = 50_000.0)]
    from: f64,

    /// The rate that is enough.
    #[arg(long, default_value_t = 1_000_000.0)]
    to: f64,

    /// How long each rate is tried.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    step: Duration,

    /// How close the answer must be, as a share of it.
    #[arg(long, default_value_t = 0.1)]
    precision: f64,
}

const CALIBRATE_EXAMPLES: &str = "\
Examples:
  kappa-loadtest calibrate
  kappa-loadtest calibrate --scenario skew --from 500000 --step 20s --precision 0.05

A rate is kept if the gates of the run itself are passed: few events slip, little waits for Kafka, nothing is refused.";

/// Find the highest rate that the generator keeps and Kafka takes, without a pipeline.
#[derive(Debug, Args)]
#[command(after_help = CALIBRATE_EXAMPLES)]
struct CalibrateArguments {
    /// What is sent.
    #[arg(long, default_value = "steady")]
    scenario: String,

    #[command(flatten)]
    common: CommonArguments,

    /// The rate to begin with.
    #[arg(long, default_value_t = 200_000.0)]
    from: f64,

    /// The rate that is enough.
    #[arg(long, default_value_t = 2_000_000.0)]
    to: f64,

    /// How long each rate is tried.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    step: Duration,

    /// How close the answer must be, as a share of it.
    #[arg(long, default_value_t = 0.1)]
    precision: f64,
}

/// What a billion events cost, from the figures of a report.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kappa-loadtest cost\n  kappa-loadtest cost target/load/report.json --prices mine.toml"
)]
struct CostArguments {
    /// The report.json of a run.
    #[arg(default_value = "target/load/report.json")]
    report: PathBuf,

    /// A file like loadtest/prices.toml, which has list prices.
    #[arg(long)]
    prices: Option<PathBuf>,
}

/// List the scenarios, each with a sentence.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kappa-loadtest scenarios\n  kappa-loadtest scenarios --show spike")]
struct ScenariosArguments {
    /// A file with scenarios of your own.
    #[arg(long)]
    file: Option<PathBuf>,

    /// Everything of one scenario, with what it takes over from others.
    #[arg(long, value_name = "SCENARIO")]
    show: Option<String>,
}

#[derive(Debug, Args)]
struct CommonArguments {
    /// A file with scenarios of your own, like loadtest/scenarios.toml.
    #[arg(long)]
    file: Option<PathBuf>,

    /// What is started, with a pipeline on it, and taken down again unless it was up before.
    #[arg(long, value_enum, default_value_t = Stack::Local, conflicts_with = "config")]
    target: Stack,

    /// Directory of that stack [default: target/load/stack or target/load/embedded].
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    stack_dir: Option<PathBuf>,

    /// The configuration file of a pipeline that runs already, on any cluster.
    #[arg(long, short, value_name = "KAPPA.TOML")]
    config: Option<PathBuf>,

    /// Address of a process of that pipeline, for /status and /metrics; may be given several times
    /// [default: http.listen of the configuration].
    #[arg(long, value_name = "URL", requires = "config")]
    status_url: Vec<Url>,

    /// A process on this machine to watch; may be given several times. The one called kappa is judged.
    #[arg(long, value_name = "NAME=PID", value_parser = parse_process, requires = "config")]
    pid: Vec<(String, u32)>,

    /// How long the pipeline may take to process the rest.
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = parse_duration)]
    drain_timeout: Duration,

    /// How long it may take until everything is committed; more than its checkpoint.interval.
    #[arg(long, value_name = "DURATION", default_value = "6m", value_parser = parse_duration)]
    seal_timeout: Duration,

    /// Where the reports go [default: target/load].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What the harness can start by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Stack {
    /// The stack of deploy/local: Apache Kafka, Apicurio, versitygw and the ClickHouse engine.
    Local,
    /// The stack of `kappa demo`: a mock broker in memory, directories, and the ClickHouse engine.
    Embedded,
}

fn parse_process(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').ok_or("must look like kappa=4711")?;
    Ok((name.to_owned(), pid.parse().map_err(|_| format!("{pid} is not the number of a process"))?))
}

/// Everything that `main` does.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = match runtime.context("cannot start the runtime") {
        Ok(runtime) => {
            let outcome = runtime.block_on(dispatch(cli.command));
            // A blocking call into librdkafka must not hold the exit up.
            runtime.shutdown_timeout(Duration::from_secs(1));
            outcome
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("kappa-loadtest: {error:#}"));
            ExitCode::from(if error.is::<ScenarioError>() { WRONG_USE } else { 1 })
        }
    }
}

async fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(arguments) => run_scenario(arguments).await,
        Command::FindMax(arguments) => {
            let search = search(arguments.from, arguments.to, arguments.precision)?;
            let (bench, scenario) = prepare(&arguments.common, &arguments.scenario, arguments.step)?;
            find_max::find_max(&bench, &arguments.scenario, scenario, search, interrupts()?).await
        }
        Command::Calibrate(arguments) => {
            let search = search(arguments.from, arguments.to, arguments.precision)?;
            let (bench, scenario) = prepare(&arguments.common, &arguments.scenario, arguments.step)?;
            calibrate::calibrate(&bench, scenario, search, interrupts()?).await
        }
        Command::Cost(arguments) => print_cost(&arguments),
        Command::Scenarios(arguments) => list_scenarios(&arguments),
    }
}

fn print_cost(arguments: &CostArguments) -> anyhow::Result<u8> {
    let prices = Prices::load(arguments.prices.as_deref())?;
    println!("{}", cost::table(&cost::bill(&read_figures(&arguments.report)?, &prices)));
    Ok(0)
}

fn list_scenarios(arguments: &ScenariosArguments) -> anyhow::Result<u8> {
    let scenarios = Scenarios::load(arguments.file.as_deref())?;
    if let Some(name) = &arguments.show {
        println!("{}", serde_json::to_string_pretty(&scenarios.get(name)?)?);
        return Ok(0);
    }
    for name in scenarios.names() {
        println!("{name:<12} {}", scenarios.get(&name)?.about);
    }
    Ok(0)
}

async fn run_scenario(arguments: RunArguments) -> anyhow::Result<u8> {
    // Before anything is started: what is wrong with the words of the command is said at once.
    let mut scenario = Scenarios::load(arguments.common.file.as_deref())?.get(&arguments.scenario)?;
    scenario.rate = arguments.rate.unwrap_or(scenario.rate);
    scenario.duration = arguments.duration.unwrap_or(scenario.duration);
    scenario.check(&arguments.scenario)?;
    let baseline = arguments.compare.as_deref().map(read_figures).transpose()?;
    let interrupt = interrupts()?;
    let bench = bench(&arguments.common)?;
    let report = bench.run(&arguments.scenario, &scenario, interrupt).await?;
    let page = report.write(&bench.out, "report")?;
    println!("{}", report.summary());
    if let Some(baseline) = baseline {
        println!("\n{}", table(&compare(&baseline, &report.figures)));
    }
    println!("{}", page.display());
    Ok(report.verdict().exit_code())
}

fn search(from: f64, to: f64, precision: f64) -> anyhow::Result<Search> {
    if from <= 0.0 || to < from || precision <= 0.0 {
        bail!("--from must be more than 0, --to not below it, and --precision more than 0");
    }
    Ok(Search::new(from, to, precision))
}

/// For a search: where runs are made, and the scenario with the length of its steps.
fn prepare(common: &CommonArguments, name: &str, step: Duration) -> anyhow::Result<(Bench, Scenario)> {
    let mut scenario = Scenarios::load(common.file.as_deref())?.get(name)?;
    scenario.duration = step;
    scenario.check(name)?;
    Ok((bench(common)?, scenario))
}

fn bench(arguments: &CommonArguments) -> anyhow::Result<Bench> {
    let load_directory = find_repository().unwrap_or_default().join("target/load");
    let directory = arguments.stack_dir.as_deref();
    let place = match (&arguments.config, arguments.target) {
        (Some(config), _) => {
            let (addresses, processes) = (arguments.status_url.clone(), arguments.pid.clone());
            Place::Cluster(Box::new(Target::from_file(config, &BTreeMap::new(), addresses, processes)?))
        }
        (None, Stack::Local) => {
            say("starting the local stack");
            Place::Local(LocalStack::start(directory)?)
        }
        (None, Stack::Embedded) => {
            Place::Embedded(directory.map_or_else(|| load_directory.join("embedded"), Path::to_owned))
        }
    };
    let out = arguments.out.clone().unwrap_or(load_directory);
    Ok(Bench::new(place, out, arguments.drain_timeout, arguments.seal_timeout))
}

/// The first SIGINT or SIGTERM sets it; the second ends the program.
fn interrupts() -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        for is_first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if !is_first {
                say(
                    "leaving at once: what was started stays up. `deploy/local/stack down --dir target/load/stack` ends a local stack; look for `kappa` among the processes",
                );
                std::process::exit(130);
            }
            sender.send_replace(true);
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_each_command_has_examples() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
            let examples = command.get_after_help().is_some_and(|help| help.to_string().contains("Examples:"));
            assert!(examples, "{} has no examples", command.get_name());
        }
    }

    #[test]
    fn wrong_words_are_refused() {
        for words in [
            vec!["run", "--for", "soon"],
            vec!["run", "--target", "moon"],
            vec!["run", "-c", "kappa.toml", "--target", "embedded"],
            vec!["run", "--pid", "kappa=1"],
            vec!["run", "-c", "kappa.toml", "--pid", "kappa"],
            vec!["run", "-c", "kappa.toml", "--stack-dir", "x"],
        ] {
            assert!(Cli::try_parse_from([vec!["kappa-loadtest"], words.clone()].concat()).is_err(), "{words:?}");
        }
        let words = ["kappa-loadtest", "run", "-c", "k.toml", "--pid", "kappa=7", "--for", "90s", "--rate", "1000"];
        let Command::Run(run) = Cli::try_parse_from(words).unwrap().command else { panic!("not run") };
        assert_eq!((run.duration, run.common.pid), (Some(Duration::from_secs(90)), vec![("kappa".to_owned(), 7)]));
    }
}
