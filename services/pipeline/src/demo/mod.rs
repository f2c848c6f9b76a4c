//! `kappa demo`: the whole pipeline on one machine with nothing installed, a live fleet of sensors, and at the end a
//! comparison of what was produced with what is found.
//!
//! - [`embedded`]: what the pipeline talks to
//! - [`evolution`]: the schema changes while records flow
//! - [`fleet`]: what is measured, and everything that can be wrong with it
//! - [`producer`], [`schedule`], [`backpressure`]: how it gets into the log
//! - [`observer`], [`view`], [`screen`], [`live_page`]: what is shown meanwhile
//! - [`summary`]: what came of it
//!
//! The pipeline itself runs in this process, through the very [`Application`] that `kappa run` uses.

pub mod arguments;
pub mod backpressure;
pub mod embedded;
pub mod evolution;
pub mod fleet;
pub mod hot_store_reader;
mod live_page;
pub mod observer;
pub mod produced;
pub mod producer;
pub mod schedule;
pub mod screen;
mod stack;
pub mod summary;
pub mod view;

use std::fs::File;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use arguments::DemoArguments;

use backpressure::Positions;
use embedded::directory::DemoDirectory;
use evolution::{Evolution, Rollout};
use fleet::reading::Metric;
use fleet::{Fleet, FleetOptions};
use hot_store_reader::HotStoreReader;
use live_page::LivePage;
use observer::{Observer, SharedView};
use produced::Produced;
use producer::{ProducerOptions, RunningProducer};
use screen::Screen;
use stack::{DATABASE, GROUP, Stack, TOPIC};
use summary::{Outlook, Places};
use view::{Stage, View};

use crate::config::RegistryConfig;
use crate::ops::log_filter;
use crate::run::Application;

/// How long the pipeline may take to read what is left in the log.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(90);

/// How often it is looked whether everything still runs.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// Runs the demo to its end. The exit code says whether all counts agree.
///
/// Installs the process's logging, into a file: the screen belongs to the demo.
pub async fn run(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    let mut wishes = WishesToEnd::listen()?;
    let directory = DemoDirectory::prepare(&arguments.dir, arguments.keep)?;
    log_to_file(&directory)?;
    if arguments.stack_only {
        return serve_stack(arguments, directory, wishes).await;
    }
    let demo = tokio::select! {
        started = Demo::start(arguments, directory) => started?,
        () = wishes.next() => {
            println!("Ended before everything had started.");
            return Ok(ExitCode::FAILURE);
        }
    };
    demo.run_to_end(wishes).await
}

/// Starts what the pipeline talks to, and nothing else, and waits to be ended.
async fn serve_stack(
    arguments: DemoArguments,
    directory: DemoDirectory,
    mut wishes: WishesToEnd,
) -> anyhow::Result<ExitCode> {
    let mut stack = tokio::select! {
        started = Stack::start(&arguments, directory) => started?,
        () = wishes.next() => {
            println!("Ended before everything had started.");
            return Ok(ExitCode::FAILURE);
        }
    };
    stack.configure(arguments.http)?;
    stack.tell_addresses()?;
    println!("Everything answers: see {}. Ctrl-C ends it.", stack.directory.environment().display());
    loop {
        tokio::select! {
            () = wishes.next() => break,
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
        stack.check()?;
    }
    stack.stop().await?;
    Ok(ExitCode::SUCCESS)
}

fn log_to_file(directory: &DemoDirectory) -> anyhow::Result<()> {
    let path = directory.log();
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let default = || log_filter::with_quiet_libraries("info").unwrap_or_default();
    let filter = log_filter::from_environment().unwrap_or_else(default);
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(file));
    // Somebody else's subscriber, as in tests, is as good.
    let _ = subscriber.try_init();
    Ok(())
}

/// Ctrl-C, SIGTERM, and `q` on the screen.
struct WishesToEnd {
    sender: mpsc::UnboundedSender<()>,
    receiver: mpsc::UnboundedReceiver<()>,
}

impl WishesToEnd {
    fn listen() -> anyhow::Result<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
            let mut signals = signal(kind).context("listen for signals")?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    let _ = sender.send(());
                }
            });
        }
        Ok(Self { sender, receiver })
    }

    async fn next(&mut self) {
        // There is always a sender: our own.
        self.receiver.recv().await;
    }
}

/// Everything, running but for the fleet.
struct Demo {
    arguments: DemoArguments,
    stack: Stack,
    fleet: Fleet,
    produced: Arc<Produced>,
    positions: Arc<Positions>,
    view: SharedView,
    hot_store: HotStoreReader,
    observer: Observer,
    pipeline: Pipeline,
    live_page: LivePage,
    rollout: Rollout,
    registry: RegistryConfig,
}

/// The pipeline's task, and the way to stop it.
struct Pipeline {
    task: JoinHandle<anyhow::Result<()>>,
    stop: oneshot::Sender<()>,
}

impl Demo {
    async fn start(arguments: DemoArguments, directory: DemoDirectory) -> anyhow::Result<Self> {
        let stack = Stack::start(&arguments, directory).await?;
        let config = stack.configure(arguments.http)?;
        let schemas = stack.register_schemas(&config).await?;
        println!("Registered the schema as id {}; creating tables ...", schemas.reading);
        crate::ops::migrate::migrate(&config.hot_store, &config.event.key)
            .await
            .context("create the tables in ClickHouse")?;

        let rollout = Rollout::default();
        let options =
            FleetOptions { sensors: arguments.sensors, seed: arguments.seed, schemas, rollout: rollout.clone() };
        let fleet = Fleet::new(options);
        let partitions = usize::from(arguments.partitions);
        let produced = Arc::new(Produced::new(fleet.series(), partitions));
        let positions = Positions::new(partitions);
        let hot_store = HotStoreReader::new(stack.clickhouse.url(), DATABASE)?;

        println!("Starting the pipeline ...");
        let registry = config.registry.clone();
        let application = Application::build(config).await.context("start the pipeline")?;
        let live_page = LivePage::start(arguments.page, stack.clickhouse.url(), application.http_address()).await?;
        println!("The live page is at {}", live_page.url());
        let view = SharedView::new(View {
            time_limit: arguments.duration,
            target_rate: arguments.rate,
            addresses: vec![
                ("live page", live_page.url().to_owned()),
                ("status", format!("http://{}/status", application.http_address())),
                ("ClickHouse", stack.clickhouse.url().to_owned()),
                ("files", arguments.dir.display().to_string()),
            ],
            ..View::default()
        });
        let observer = Observer::new(application.status(), Arc::clone(&produced), Arc::clone(&positions), view.clone());
        let pipeline = Pipeline::spawn(application);
        Ok(Self {
            arguments,
            stack,
            fleet,
            produced,
            positions,
            view,
            hot_store,
            observer,
            pipeline,
            live_page,
            rollout,
            registry,
        })
    }

    async fn run_to_end(self, mut wishes: WishesToEnd) -> anyhow::Result<ExitCode> {
        let Self {
            arguments,
            mut stack,
            fleet,
            produced,
            positions,
            view,
            hot_store,
            observer,
            mut pipeline,
            live_page,
            rollout,
            registry,
        } = self;
        let options = ProducerOptions {
            brokers: stack.broker.bootstrap_servers().to_owned(),
            topic: TOPIC.to_owned(),
            rate: arguments.rate,
            produced: Arc::clone(&produced),
            positions: Arc::clone(&positions),
        };
        let series_names = fleet.series_names();
        let sending_since = Instant::now();
        let producer = RunningProducer::start(options, fleet)?;
        let evolution = arguments
            .evolve
            .then(|| Evolution::plan(&registry, arguments.duration, rollout.clone(), view.clone()))
            .transpose()?;
        let observing = tokio::spawn(observer.run(hot_store.clone()));
        let screen = Screen::start(view.clone(), wishes.sender.clone())?;

        let time_limit = arguments.duration.unwrap_or(Duration::MAX);
        tokio::select! {
            () = wishes.next() => {}
            () = tokio::time::sleep(time_limit) => {}
            failure = first_failure(&mut pipeline, &producer, &mut stack) => {
                drop(screen);
                return Err(failure.context(format!("the demo has failed; see {}", stack.directory.log().display())));
            }
        }
        let windup = Windup {
            arguments,
            stack,
            produced,
            positions,
            view,
            hot_store,
            pipeline,
            live_page,
            producer,
            observing,
            screen,
            series_names,
            sending: sending_since.elapsed(),
            evolution,
            rollout,
        };
        // Dropped half-way it leaves no child process behind, and the terminal as it was.
        tokio::select! {
            ended = windup.run() => ended,
            () = wishes.next() => Err(anyhow!("ended by force, before everything was compared")),
        }
    }
}

/// The demo once no more events are sent.
struct Windup {
    arguments: DemoArguments,
    stack: Stack,
    produced: Arc<Produced>,
    positions: Arc<Positions>,
    view: SharedView,
    hot_store: HotStoreReader,
    pipeline: Pipeline,
    live_page: LivePage,
    producer: RunningProducer,
    observing: JoinHandle<()>,
    screen: Screen,
    series_names: Vec<(String, Metric)>,
    /// For how long events were sent.
    sending: Duration,
    /// Where the schema was to change.
    evolution: Option<Evolution>,
    rollout: Rollout,
}

impl Windup {
    /// Reads what is left, seals, and compares.
    async fn run(self) -> anyhow::Result<ExitCode> {
        let Self { arguments, stack, produced, positions, view, hot_store, pipeline, producer, .. } = self;
        if let Some(evolution) = self.evolution {
            evolution.finish().await?;
        }
        view.set_stage(Stage::StoppingFleet);
        let fleet = tokio::task::spawn_blocking(move || producer.stop()).await.context("stop the fleet")??;
        view.set_stage(Stage::Draining);
        let is_cut_short = !drain(&positions, &produced).await;
        view.set_stage(Stage::Sealing);
        let sealed = pipeline.stop().await;
        view.set_stage(Stage::Comparing);
        self.observing.abort();
        self.screen.stop()?;
        sealed.with_context(|| format!("stop the pipeline; see {}", stack.directory.log().display()))?;

        println!("Comparing what was produced with what is found ...");
        let found = summary::gather(places(&arguments, &stack, hot_store)).await?;
        let counts = produced.counts();
        let mut checks = summary::compare_counts(&counts, &found);
        if arguments.evolve {
            let by_schema = summary::rows_by_schema(&stack.directory.archive())?;
            checks.extend(summary::compare_evolved(&counts, self.rollout.schema_id(), &by_schema));
        }
        let detection = summary::compare(&self.series_names, fleet.anomalies(), &found.anomalies);
        let clickhouse_command = stack.clickhouse_program.command_line(&stack.directory.clickhouse(), "127.0.0.1:8123");
        drop(self.live_page);
        stack.clickhouse.stop().await?;
        let outlook = Outlook {
            sending: self.sending,
            punctuality: produced.punctuality(),
            directory: &stack.directory,
            topic: TOPIC,
            clickhouse_command,
            is_cut_short,
        };
        let is_as_it_should_be = summary::print(&counts, &found, &checks, &detection, &outlook);
        Ok(if is_as_it_should_be { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Pipeline {
    fn spawn(application: Application) -> Self {
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        Self { task: tokio::spawn(application.run_until_stopped(stopped)), stop }
    }

    /// Stops it gracefully: everything sealed and committed.
    async fn stop(self) -> anyhow::Result<()> {
        let _ = self.stop.send(());
        self.task.await.context("the pipeline has panicked")?
    }
}

/// Waits for whatever ends by itself, which nothing should.
async fn first_failure(pipeline: &mut Pipeline, producer: &RunningProducer, stack: &mut Stack) -> anyhow::Error {
    loop {
        tokio::select! {
            ended = &mut pipeline.task => {
                return match ended {
                    Ok(Ok(())) => anyhow!("the pipeline has ended by itself"),
                    Ok(Err(error)) => error.context("the pipeline has failed"),
                    Err(error) => anyhow!(error).context("the pipeline has panicked"),
                };
            }
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
        if producer.has_ended() {
            return anyhow!("the producer has ended by itself");
        }
        if let Err(error) = stack.check() {
            return error;
        }
    }
}

/// Waits until the pipeline has read everything. False if it has not in time.
async fn drain(positions: &Positions, produced: &Produced) -> bool {
    let everything_read = async {
        while positions.unread_total(produced) > 0 {
            tokio::time::sleep(CHECK_EVERY).await;
        }
    };
    tokio::time::timeout(DRAIN_TIMEOUT, everything_read).await.is_ok()
}

fn places(arguments: &DemoArguments, stack: &Stack, hot_store: HotStoreReader) -> Places {
    Places {
        brokers: stack.broker.bootstrap_servers().to_owned(),
        topic: TOPIC.to_owned(),
        group: GROUP.to_owned(),
        partitions: i32::from(arguments.partitions),
        archive: stack.directory.archive(),
        dead_letters: stack.directory.dead_letters(),
        hot_store,
    }
}
