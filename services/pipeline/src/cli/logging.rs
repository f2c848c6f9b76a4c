//! Where logs go, and how much of them.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::ops::log_filter;

/// For people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// How much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub(super) struct LoggingArguments {
    /// Form of the log lines on standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Pretty, env = "KAPPA_LOG_FORMAT")]
    log_format: LogFormat,

    /// How much is logged [default: what RUST_LOG says, else info].
    ///
    /// Of RUST_LOG's directives one for `object_store` must be named: otherwise it warns only.
    #[arg(long, global = true, value_enum)]
    log_level: Option<LogLevel>,
}

impl LoggingArguments {
    /// Installs the process's logging.
    pub(super) fn install(&self) -> anyhow::Result<()> {
        let subscriber = tracing_subscriber::fmt().with_env_filter(self.filter()).with_writer(std::io::stderr);
        let installed = match self.log_format {
            LogFormat::Json => subscriber.json().flatten_event(true).with_current_span(false).try_init(),
            LogFormat::Pretty => {
                let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
                subscriber.with_ansi(terminal).with_target(false).try_init()
            }
        };
        installed.map_err(|error| anyhow::anyhow!("cannot install logging: {error}"))
    }

    /// The flag over `RUST_LOG` over the default. Libraries are quieter than we are.
    fn filter(&self) -> EnvFilter {
        let of_level = |level: &str, libraries: &str| {
            EnvFilter::new(format!("{libraries},kappa={level},kappa_core={level},kappa_pipeline={level}"))
        };
        match self.log_level {
            Some(LogLevel::Error) => of_level("error", "error"),
            Some(LogLevel::Warn) => of_level("warn", "warn"),
            Some(LogLevel::Info) => of_level("info", "warn"),
            Some(LogLevel::Debug) => of_level("debug", "info,object_store=warn,librdkafka=debug"),
            Some(LogLevel::Trace) => of_level("trace", "debug"),
            None => log_filter::from_environment().unwrap_or_else(|| of_level("info", "warn")),
        }
    }
}
