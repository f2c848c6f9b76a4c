//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use humantime_serde::re::humantime::parse_duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use url::Url;

use crate::click_house::ClickHouse;
use crate::compare::{compare, read_figures, table};
use crate::cost::{self, Prices};
use crate::environment::Environment;
use crate::find_max::Search;
use crate::gates::Verdict;
use crate::progress::{Progress, grouped, say};
use crate::report::Report;
use crate::run::{Plan, run};
use crate::scenario::{Scenario, ScenarioError, Scenarios};
use crate::stack::{LocalStack, find_repository};
use crate::target::Target;

/// Exit code of a wrong use.
const WRONG_USE: u8 = 2;

/// The program's own name among the processes.
const GENERATOR: &str = "generator";

const EXAMPLES: &str = "\
Examples:
  kappa-loadtest run                                     50,000 events/s for five minutes on a local stack of its own
  kappa-loadtest run spike --rate 20000 --for 2m
  kappa-loadtest run mine --file my-scenarios.toml --compare target/load/baseline.json
  kappa-loadtest run steady --config kappa.toml --status-url http://kappa-0:9464 --status-url http://kappa-1:9464
  kappa-loadtest find-max --from 50000 --precision 0.05
  kappa-loadtest cost
  kappa-loadtest scenarios

Exit codes: 0 every gate is passed, 1 one is not, 2 wrong use, 3 not valid: the generator did not keep its schedule.";

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
    Cost(CostArguments),
    Scenarios(ScenariosArguments),
}

const RUN_EXAMPLES: &str = "\
Examples:
  kappa-loadtest run
  kappa-loadtest run everything --rate 10000 --for 3m
  kappa-loadtest run steady --config kappa.toml --pid kappa=4711

Against a cluster (--config): the topic must exist and get nothing else meanwhile, and the pipeline must run. What is
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

    /// The local stack: it is started, with a pipeline on it, and taken down again unless it was up before.
    #[arg(long, value_parser = ["local"], default_value = "local", conflicts_with = "config")]
    stack: String,

    /// Directory of the local stack [default: target/load/stack].
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
        Command::FindMax(arguments) => find_max(arguments).await,
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
    let bench = Bench::start(&arguments.common)?;
    let report = bench.run(&arguments.scenario, &scenario, interrupt).await?;
    let page = report.write(&bench.out, "report")?;
    println!("{}", report.summary());
    if let Some(baseline) = baseline {
        println!("\n{}", table(&compare(&baseline, &report.figures)));
    }
    println!("{}", page.display());
    Ok(report.verdict().exit_code())
}

async fn find_max(arguments: FindMaxArguments) -> anyhow::Result<u8> {
    if arguments.from <= 0.0 || arguments.to < arguments.from || arguments.precision <= 0.0 {
        bail!("--from must be more than 0, --to not below it, and --precision more than 0");
    }
    let mut scenario = Scenarios::load(arguments.common.file.as_deref())?.get(&arguments.scenario)?;
    scenario.duration = arguments.step;
    let interrupt = interrupts()?;
    let bench = Bench::start(&arguments.common)?;
    let mut search = Search::new(arguments.from, arguments.to, arguments.precision);
    let mut steps = Vec::new();
    while let Some(rate) = search.next() {
        scenario.rate = rate.round();
        scenario.check(&arguments.scenario)?;
        let report = bench.run(&arguments.scenario, &scenario, interrupt.clone()).await?;
        if *interrupt.borrow() {
            break;
        }
        let verdict = report.verdict();
        println!(
            "{:>10} events/s: {}; p99 {:.0} ms, lag {:+.0} records/s, slips {:.3} %, kappa {:.2} cores",
            grouped(rate),
            verdict.text(),
            report.figure("latency_p99_ms"),
            report.figure("lag_growth_per_second"),
            report.figure("slipped_share"),
            report.figure("kappa_cpu_cores"),
        );
        steps.push(serde_json::json!({ "rate": rate.round(), "verdict": verdict, "figures": report.figures }));
        search.tried(rate, verdict == Verdict::Passed);
        if verdict == Verdict::Passed {
            report.write(&bench.out, "find-max-best")?;
        }
    }
    let answer = serde_json::json!({
        "kind": "kappa-load-find-max", "scenario": scenario, "sustained": search.sustained(),
        "refused": search.refused(), "steps": steps,
    });
    let path = bench.out.join("find-max.json");
    std::fs::create_dir_all(&bench.out)?;
    std::fs::write(&path, serde_json::to_string_pretty(&answer)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    match (search.sustained(), search.refused()) {
        (Some(low), Some(high)) => {
            println!("sustained: {} events/s; {} is too much", grouped(low), grouped(high));
        }
        (Some(low), None) => println!("sustained: {} events/s; no more was tried", grouped(low)),
        (None, _) => println!("nothing was sustained"),
    }
    println!("{}", path.display());
    Ok(u8::from(search.sustained().is_none()))
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
                    "leaving at once: a local stack stays up; `deploy/local/stack down --dir target/load/stack` ends it",
                );
                std::process::exit(130);
            }
            sender.send_replace(true);
        }
    });
    Ok(receiver)
}

/// Where runs are made: a local stack, or a cluster.
struct Bench {
    stack: Option<LocalStack>,
    cluster: Option<Target>,
    out: PathBuf,
    drain_timeout: Duration,
    seal_timeout: Duration,
}

impl Bench {
    fn start(arguments: &CommonArguments) -> anyhow::Result<Self> {
        let out = match &arguments.out {
            Some(out) => out.clone(),
            None => find_repository().unwrap_or_default().join("target/load"),
        };
        let (mut stack, mut cluster) = (None, None);
        if let Some(config) = &arguments.config {
            let mut processes = arguments.pid.clone();
            processes.push((GENERATOR.to_owned(), std::process::id()));
            cluster = Some(Target::from_file(
                config,
                &std::collections::BTreeMap::new(),
                arguments.status_url.clone(),
                processes,
            )?);
        } else {
            say("starting the local stack");
            stack = Some(LocalStack::start(arguments.stack_dir.as_deref())?);
        }
        Ok(Self { stack, cluster, out, drain_timeout: arguments.drain_timeout, seal_timeout: arguments.seal_timeout })
    }

    async fn run(&self, name: &str, scenario: &Scenario, interrupt: watch::Receiver<bool>) -> anyhow::Result<Report> {
        let plan = Plan {
            name: name.to_owned(),
            scenario: scenario.clone(),
            drain_timeout: self.drain_timeout,
            seal_timeout: self.seal_timeout,
        };
        let mut environment = Environment::look();
        let progress = Progress::new(scenario.duration);
        let (target, mut local) = match (&self.stack, &self.cluster) {
            (Some(stack), _) => {
                let topic = format!("load-{}", crate::canary::now_us() / 1_000);
                let (mut target, local) = stack.start_pipeline(&topic, scenario.partitions, &scenario.pipeline).await?;
                target.processes.push((GENERATOR.to_owned(), std::process::id()));
                (target, Some(local))
            }
            (None, Some(cluster)) => (cluster.clone(), None),
            (None, None) => bail!("there is neither a stack nor a cluster"),
        };
        let version = ClickHouse::new(&target.hot_store)?.rows("SELECT version()").await;
        environment.clickhouse = version.ok().and_then(|rows| rows.into_iter().flatten().next());
        let measured = run(&plan, &target, local.as_mut(), &progress, interrupt).await;
        drop(local);
        drop(progress);
        let report = Report::new(&mut measured?, environment)?;
        if let Some(stack) = &self.stack
            && let Err(error) = stack.clean_up(&target).await
        {
            say(&format!("what the run has left could not be removed: {error:#}"));
        }
        Ok(report)
    }
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
            vec!["run", "--stack", "moon"],
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
