//! Opens the three places for objects that the configuration names.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::advice::Advise;
use crate::config::{Config, ObjectStoreConfig, StoreUrl};
use crate::partition::Stores;
use crate::storage::StoreRoot;

/// Opens archive, dead letters and state. Nothing is asked yet; directories are made.
pub fn open_all(config: &Config) -> anyhow::Result<Stores> {
    let place = |key: &'static str, url: &StoreUrl| open(url, &config.object_store).context(key);
    Ok(Stores {
        archive: place("archive.url", &config.archive.url)?,
        dead_letters: place("dead_letter.url", &config.dead_letter.url)?,
        state: place("state.url", &config.state.url)?,
    })
}

/// Opens one place.
pub fn open(url: &StoreUrl, config: &ObjectStoreConfig) -> anyhow::Result<StoreRoot> {
    match url.as_url().scheme() {
        "file" => open_directory(url),
        _ => open_bucket(url, config),
    }
}

/// A directory. Its writes are synced to the disk, file and directory entry, before they count as done; create-only is
/// a hard link, which is atomic.
fn open_directory(url: &StoreUrl) -> anyhow::Result<StoreRoot> {
    let path = url.as_url().to_file_path().ok().with_context(|| format!("{url} names no path of this system"))?;
    std::fs::create_dir_all(&path)
        .advise(format!("cannot make the directory {}", path.display()), "create it, or give this user the right to")?;
    let store = LocalFileSystem::new_with_prefix(&path)?.with_fsync(true);
    Ok(StoreRoot { store: Arc::new(store), prefix: Path::default() })
}

/// A bucket and a prefix. Credentials come from the `AWS_` variables, the web identity or the instance.
fn open_bucket(url: &StoreUrl, config: &ObjectStoreConfig) -> anyhow::Result<StoreRoot> {
    let bucket = url.as_url().host_str().context("an S3 URL without a bucket")?;
    let options = ClientOptions::new()
        .with_allow_http(config.allow_http)
        .with_connect_timeout(Duration::from_secs(5))
        // For one try of one request, a segment of 64 MiB included.
        .with_timeout(Duration::from_mins(1));
    let mut builder =
        AmazonS3Builder::from_env().with_bucket_name(bucket).with_client_options(options).with_retry(patience());
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.as_url().as_str().trim_end_matches('/'));
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    let store = builder.build().advise(
        format!("cannot use {url}"),
        "check object_store.endpoint and object_store.region, and the AWS_ variables for credentials",
    )?;
    Ok(StoreRoot { store: Arc::new(store), prefix: Path::from_url_path(url.as_url().path())? })
}

/// The callers try for ever themselves and say so on the status board. A long silence inside the client would only hide
/// an outage from them, so it makes good a single lost connection and no more.
fn patience() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_millis(500),
            base: 2.0,
        },
        max_retries: 1,
        retry_timeout: Duration::from_secs(10),
    }
}

#[cfg(test)]
mod tests {
    use object_store::{ObjectStoreExt, PutMode};

    use super::*;

    #[tokio::test]
    async fn a_directory_is_made_and_creates_once() {
        let directory = tempfile::tempdir().unwrap();
        let url: StoreUrl = format!("file://{}/deep/er", directory.path().display()).parse().unwrap();
        let root = open(&url, &ObjectStoreConfig::default()).unwrap();
        let key = root.prefix.clone().join("a").join("b");
        root.store.put_opts(&key, "one".into(), PutMode::Create.into()).await.unwrap();
        let again = root.store.put_opts(&key, "two".into(), PutMode::Create.into()).await;
        assert!(matches!(again, Err(object_store::Error::AlreadyExists { .. })), "{again:?}");
        assert_eq!(root.store.get(&key).await.unwrap().bytes().await.unwrap(), "one");
        assert!(directory.path().join("deep/er/a/b").exists());
    }

    #[test]
    fn a_bucket_and_its_prefix() {
        let url: StoreUrl = "s3://archive/raw/events/".parse().unwrap();
        let config = ObjectStoreConfig {
            endpoint: Some("http://127.0.0.1:7070/".parse().unwrap()),
            region: Some("eu-central-1".to_owned()),
            allow_http: true,
        };
        let root = open(&url, &config).unwrap();
        assert_eq!(root.prefix.as_ref(), "raw/events");
        assert!(root.store.to_string().contains("archive"), "{}", root.store);
    }
}
