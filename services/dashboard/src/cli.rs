//! The command line of `kappa-dashboard`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use crate::application::Dashboard;
use crate::settings::{Password, Settings};

const EXAMPLES: &str = "\
Examples:
  kappa-dashboard
      reads ClickHouse at 127.0.0.1:8123 and a pipeline at 127.0.0.1:9464, serves http://127.0.0.1:8088
  kappa-dashboard --clickhouse https://clickhouse:8443 --user kappa_reader --password-file /run/secrets/reader \\
                  --pipeline http://kappa-0:9464 --pipeline http://kappa-1:9464 --listen 0.0.0.0:8088
  KAPPA_DASHBOARD_PIPELINE=http://kappa-0:9464,http://kappa-1:9464 kappa-dashboard

Its ClickHouse user needs no more than:
  GRANT SELECT ON kappa.windows_1m TO kappa_reader
  GRANT SELECT ON kappa.anomalies TO kappa_reader
  GRANT SELECT ON kappa.sensors TO kappa_reader

It has no login of its own: put it behind what protects your other internal pages.
Serves the page at /, and /healthz, /readyz, /metrics. Exit codes: 0 done, 1 failed, 2 wrong use.";

/// The live page of Kappa: the fleet, each sensor, its anomalies, and the pipeline.
#[derive(Debug, Parser)]
#[command(name = "kappa-dashboard", version, after_help = EXAMPLES, max_term_width = 120)]
struct Arguments {
    /// Where the page is served; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8088", env = "KAPPA_DASHBOARD_LISTEN", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// ClickHouse's HTTP interface.
    #[arg(long, default_value = "http://127.0.0.1:8123", env = "KAPPA_DASHBOARD_CLICKHOUSE", value_name = "URL", value_parser = parse_url, hide_env_values = true)]
    clickhouse: Url,

    /// Database of the tables.
    #[arg(long, default_value = "kappa", env = "KAPPA_DASHBOARD_DATABASE", value_name = "NAME")]
    database: String,

    /// ClickHouse user; SELECT is all it needs.
    #[arg(long, default_value = "default", env = "KAPPA_DASHBOARD_USER", value_name = "NAME")]
    user: String,

    /// File with that user's password.
    #[arg(long, env = "KAPPA_DASHBOARD_PASSWORD_FILE", value_name = "PATH")]
    password_file: Option<PathBuf>,

    /// A pipeline, or its /status; may be given several times, or separated by commas.
    #[arg(long = "pipeline", default_value = "http://127.0.0.1:9464", env = "KAPPA_DASHBOARD_PIPELINE", value_name = "URL", value_delimiter = ',', value_parser = parse_url, hide_env_values = true)]
    pipelines: Vec<Url>,

    /// First field of `event.key`.
    #[arg(long, default_value = "sensor_id", env = "KAPPA_DASHBOARD_SENSOR_COLUMN", value_name = "NAME")]
    sensor_column: String,

    /// Second field of `event.key`.
    #[arg(long, default_value = "metric", env = "KAPPA_DASHBOARD_METRIC_COLUMN", value_name = "NAME")]
    metric_column: String,

    /// `windows.length` of the pipeline, in seconds.
    #[arg(long, default_value_t = 60, env = "KAPPA_DASHBOARD_WINDOW", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    window: u64,

    /// Pages that may be open at once.
    #[arg(long, default_value_t = 100, env = "KAPPA_DASHBOARD_MAX_VIEWERS", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_viewers: u32,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,kappa_dashboard=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let settings = arguments.into_settings()?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let dashboard = Dashboard::build(settings).await?;
    {
        use std::io::Write as _;
        // Whoever started it may have closed its end.
        let _ = writeln!(std::io::stdout(), "the live page is at {}", dashboard.url());
    }
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    dashboard.run_until_stopped(stop).await
}

impl Arguments {
    fn into_settings(self) -> anyhow::Result<Settings> {
        let password = match &self.password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                Some(Password::new(&text.with_context(|| format!("cannot read the password file {}", path.display()))?))
            }
            None => None,
        };
        Ok(Settings {
            database: self.database,
            user: self.user,
            password,
            sensor_column: self.sensor_column,
            metric_column: self.metric_column,
            window: Duration::from_secs(self.window),
            max_viewers: self.max_viewers as usize,
            ..Settings::new(self.listen, self.clickhouse, self.pipelines.into_iter().map(status_of).collect())
        })
    }
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
        return Err("must be an address like http://host:port".to_owned());
    }
    Ok(url)
}

/// `http://host:9464` means its `/status`.
fn status_of(mut url: Url) -> Url {
    if url.path() == "/" {
        url.set_path("/status");
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_lists() {
        let settings = Arguments::try_parse_from(["kappa-dashboard"]).unwrap().into_settings().unwrap();
        assert_eq!(settings.pipelines[0].as_str(), "http://127.0.0.1:9464/status");
        assert_eq!(settings.window, Duration::from_mins(1));
        let several = ["kappa-dashboard", "--pipeline", "http://a:1,http://b:2/x/status", "--pipeline", "http://c:3"];
        let settings = Arguments::try_parse_from(several).unwrap().into_settings().unwrap();
        let urls: Vec<_> = settings.pipelines.iter().map(Url::as_str).collect();
        assert_eq!(urls, ["http://a:1/status", "http://b:2/x/status", "http://c:3/status"]);
    }

    #[test]
    fn what_is_no_address_is_wrong_use() {
        for wrong in
            [["--clickhouse", "localhost"], ["--pipeline", "file:///x"], ["--listen", "8088"], ["--window", "0"]]
        {
            assert!(Arguments::try_parse_from(["kappa-dashboard"].into_iter().chain(wrong)).is_err(), "{wrong:?}");
        }
        let missing = ["kappa-dashboard", "--password-file", "/no/such/file"];
        let error = Arguments::try_parse_from(missing).unwrap().into_settings().unwrap_err();
        assert!(error.to_string().contains("/no/such/file"));
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(format!("{:?}", Password::new("secret\n")), "(hidden)");
        assert_eq!(Password::new("secret\r\n").expose(), "secret");
    }
}
