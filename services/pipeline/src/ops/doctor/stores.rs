//! The three places for objects.

use futures::StreamExt;
use futures::future::join_all;

use super::{Check, limited};
use crate::config::{Config, StoreUrl};
use crate::ops::object_stores;
use crate::ops::probe;

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let places =
        [("archive", &config.archive.url), ("dead letters", &config.dead_letter.url), ("state", &config.state.url)];
    let checks = places.map(|(name, url)| limited(name, check_place(config, name, url)));
    join_all(checks).await.concat()
}

async fn check_place(config: &Config, name: &'static str, url: &StoreUrl) -> Vec<Check> {
    let root = match object_stores::open(url, &config.object_store) {
        Ok(root) => root,
        Err(error) => return vec![Check::error(name, &error)],
    };
    // Puts, gets and deletes, too.
    if let Err(error) = probe::create_only(&root).await {
        return vec![Check::error(name, &error)];
    }
    let prefix = (!root.prefix.as_ref().is_empty()).then_some(&root.prefix);
    if let Some(Err(error)) = root.store.list(prefix).next().await {
        let advice = "allow listing: snapshots are tidied up and segments are found by it";
        return vec![Check::fail(name, format!("{url} cannot be listed: {error}"), advice)];
    }
    vec![Check::ok(name, format!("{url} lists, puts, gets, and creates once only"))]
}
