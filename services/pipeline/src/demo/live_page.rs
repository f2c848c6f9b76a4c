//! The live page of the demo: the same as `kappa-dashboard` serves, in this process.

use std::net::SocketAddr;

use anyhow::Context;
use kappa_dashboard::{Dashboard, Settings};
use tokio::task::JoinHandle;
use url::Url;

use super::stack::DATABASE;

/// Where the page is looked for first.
const USUAL_ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 8088);

/// The page, served until dropped.
#[derive(Debug)]
pub(super) struct LivePage {
    url: String,
    task: JoinHandle<anyhow::Result<()>>,
}

impl LivePage {
    /// Serves what this ClickHouse and this pipeline show.
    pub(super) async fn start(
        listen: Option<SocketAddr>,
        click_house: &str,
        pipeline: SocketAddr,
    ) -> anyhow::Result<Self> {
        let click_house = Url::parse(click_house).context("the address of ClickHouse")?;
        let status = Url::parse(&format!("http://{pipeline}/status")).context("the address of the pipeline")?;
        let settings = |listen| Settings {
            database: DATABASE.to_owned(),
            ..Settings::new(listen, click_house.clone(), vec![status.clone()])
        };
        let dashboard = match listen {
            Some(listen) => Dashboard::build(settings(listen)).await?,
            None => match Dashboard::build(settings(USUAL_ADDRESS.into())).await {
                Ok(dashboard) => dashboard,
                Err(_) => Dashboard::build(settings((USUAL_ADDRESS.0, 0).into())).await?,
            },
        };
        let url = dashboard.url();
        Ok(Self { url, task: tokio::spawn(dashboard.run_until_stopped(std::future::pending())) })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for LivePage {
    fn drop(&mut self) {
        self.task.abort();
    }
}
