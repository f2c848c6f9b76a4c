//! `kappa health`: asks a running process how it is. For container engines and supervisors, which know exit codes only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use url::Url;

use super::configuration::ConfigArguments;
use crate::config::Needs;
use crate::ops::advice::{Advise, causes};

const EXAMPLES: &str = "\
Examples:
  kappa health                                  of the process that listens on http.listen of kappa.toml
  kappa health --ready -c /etc/kappa/kappa.toml
  kappa health --url http://127.0.0.1:8080/     of any other server: is its answer 200?

Exit code 0 if it answers 200, else 1. Whoever restarts by it should ask without --ready: being behind, or waiting for
a service that is away, is no reason for a restart.";

/// Ask a running pipeline whether it is well.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct HealthArguments {
    #[command(flatten)]
    config: ConfigArguments,

    /// Ask /readyz in place of /healthz.
    #[arg(long, conflicts_with = "url")]
    ready: bool,

    /// Ask this address, whatever the configuration says.
    #[arg(long, value_name = "URL")]
    url: Option<Url>,

    /// Longest time to wait for the answer.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime_serde::re::humantime::parse_duration)]
    timeout: Duration,
}

impl HealthArguments {
    fn address(&self) -> anyhow::Result<Url> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        let listen = self.config.load(Needs::Nothing)?.config.http.listen;
        let path = if self.ready { "readyz" } else { "healthz" };
        Url::parse(&format!("http://{}/{path}", reachable(listen))).context("http.listen is no address to ask")
    }
}

/// Where a process can be asked that listens there: "all addresses" is none.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Prints the answer.
pub(super) async fn ask(arguments: &HealthArguments) -> anyhow::Result<ExitCode> {
    let address = arguments.address()?;
    // A proxy of the environment is for the world outside.
    let client = reqwest::Client::builder().no_proxy().timeout(arguments.timeout).build()?;
    let answer = async {
        let response = client.get(address.clone()).send().await?;
        let status = response.status();
        Ok((status, response.text().await?))
    };
    let (status, text): (reqwest::StatusCode, String) = answer
        .await
        .map_err(|error: reqwest::Error| anyhow::anyhow!(causes(&error.without_url().into()).join(": ")))
        .advise(format!("{address} does not answer"), "is the process running, and is http.listen the one it has?")?;
    if status == reqwest::StatusCode::OK {
        println!("{}", if arguments.url.is_some() { "ok" } else { text.trim() });
        return Ok(ExitCode::SUCCESS);
    }
    println!("{status}: {}", text.trim());
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_listens_everywhere_is_asked_here() {
        let asked = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0:9464"), "127.0.0.1:9464");
        assert_eq!(asked("[::]:9464"), "[::1]:9464");
        assert_eq!(asked("10.1.2.3:80"), "10.1.2.3:80");
    }
}
