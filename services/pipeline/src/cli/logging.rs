//! Where logs go, in which form, and how much of them: flags over environment over `[log]` of the configuration.

use clap::Args;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::{LogConfig, LogFormat, LogLevel};
use crate::ops::log_filter;
use crate::ops::traces::{self, Traces};

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub(super) struct LoggingArguments {
    /// Form of the log lines on standard error [default: log.format, pretty if nobody sets it].
    #[arg(long, global = true, value_enum, env = "KAPPA_LOG_FORMAT")]
    log_format: Option<LogFormat>,

    /// How much is logged [default: what RUST_LOG says, else log.level, else info].
    ///
    /// Of RUST_LOG's directives one for `object_store` must be named: otherwise it warns only.
    #[arg(long, global = true, value_enum)]
    log_level: Option<LogLevel>,
}

impl LoggingArguments {
    /// Installs the process's logging, and the export of traces if it was built in and asked for. Traces end with what is
    /// returned.
    pub(super) fn install(&self, config: &LogConfig) -> anyhow::Result<Traces> {
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = match self.log_format.unwrap_or(config.format) {
            LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
            LogFormat::Pretty => {
                let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
                lines.with_ansi(terminal).with_target(false).boxed()
            }
        };
        let (traces, exporter) = traces::from_environment()?;
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(self.filter(config))).with(exporter);
        subscriber.try_init().map_err(|error| anyhow::anyhow!("cannot install logging: {error}"))?;
        traces.warn_if_missing();
        Ok(traces)
    }

    fn filter(&self, config: &LogConfig) -> EnvFilter {
        match self.log_level {
            Some(level) => of_level(level),
            None => log_filter::from_environment().unwrap_or_else(|| of_level(config.level)),
        }
    }
}

/// Libraries are quieter than we are.
fn of_level(level: LogLevel) -> EnvFilter {
    let (ours, libraries) = match level {
        LogLevel::Error => ("error", "error"),
        LogLevel::Warn => ("warn", "warn"),
        LogLevel::Info => ("info", "warn"),
        LogLevel::Debug => ("debug", "info,object_store=warn,librdkafka=debug"),
        LogLevel::Trace => ("trace", "debug"),
    };
    EnvFilter::new(format!("{libraries},kappa={ours},kappa_core={ours},kappa_pipeline={ours}"))
}
