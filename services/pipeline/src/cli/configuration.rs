//! The flags that become configuration, and `kappa config check|print`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::checked_reader_schema;
use crate::config::{ConfigurationError, LoadedConfig, Needs, PrintFormat, Sources, print};
use crate::contract;

/// What every command that needs a configuration takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration")]
pub(super) struct ConfigArguments {
    /// TOML file [default: kappa.toml, if there is one].
    #[arg(short, long, value_name = "FILE", env = "KAPPA_CONFIG")]
    config: Option<PathBuf>,

    /// Set any key, such as windows.length=5m; more than once if need be.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse_assignment)]
    set: Vec<(String, String)>,

    /// Short for --set kafka.brokers=...
    #[arg(short, long, value_name = "HOST:PORT,...")]
    brokers: Option<String>,

    /// Short for --set kafka.topic=...
    #[arg(short, long)]
    topic: Option<String>,

    /// Short for --set kafka.group=...
    #[arg(short, long)]
    group: Option<String>,

    /// Short for --set http.listen=...
    #[arg(short, long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
}

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

impl ConfigArguments {
    /// Puts the configuration together and checks it.
    pub(super) fn load(&self, needs: Needs) -> Result<LoadedConfig, ConfigurationError> {
        let mut sources = Sources::of_process(self.config.clone());
        for (key, value) in &self.set {
            // Not the value: it may be what must not be shown.
            sources = sources.with_flag(key, value, format!("--set {key}"));
        }
        let short = [
            ("kafka.brokers", &self.brokers, "--brokers"),
            ("kafka.topic", &self.topic, "--topic"),
            ("kafka.group", &self.group, "--group"),
            ("http.listen", &self.listen, "--listen"),
        ];
        for (key, value, flag) in short {
            if let Some(value) = value {
                sources = sources.with_flag(key, value, flag);
            }
        }
        sources.load(needs)
    }
}

const CHECK_EXAMPLES: &str = "\
Examples:
  kappa config check -c kappa.toml
  kappa config check -c kappa.toml -s windows.length=5m

Reads nothing but the files that the configuration names. Exit code 2 if anything is wrong; all of it is said at once.";

const PRINT_EXAMPLES: &str = "\
Examples:
  kappa config print                           every key with its default: a file to start from
  kappa config print -c kappa.toml             what is in force, and who set it
  kappa config print --format json | jq '.\"kafka.brokers\"'

Secrets are never printed.";

/// `kappa config`
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say everything that is wrong with the configuration.
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        #[command(flatten)]
        config: ConfigArguments,
    },
    /// Print every key with its value, and where that came from.
    #[command(after_help = PRINT_EXAMPLES)]
    Print {
        #[command(flatten)]
        config: ConfigArguments,

        /// Form of the output.
        #[arg(long, value_enum, default_value_t = PrintFormat::Toml)]
        format: PrintFormat,
    },
}

pub(super) fn dispatch(command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Check { config } => {
            let loaded = config.load(Needs::Everything)?;
            contract::in_force(&loaded.config, &checked_reader_schema(&loaded.config)?)?;
            println!("the configuration is complete and consistent");
        }
        ConfigCommand::Print { config, format } => {
            print!("{}", print(&config.load(Needs::Nothing)?, *format)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
