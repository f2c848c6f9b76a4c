//! The hot store's tables: numbered SQL files, applied in order and written down in the database.
//!
//! Every statement says `IF NOT EXISTS` or `OR REPLACE`, so it does no harm if two migrations run at once, or if one
//! ends between a statement and its record. A file that was applied is never edited: the next number changes it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_128;

use super::advice::{Advise, advised};
use super::clickhouse_http::{ClickHouseError, ClickHouseHttp};
use crate::config::HotStoreConfig;

/// One numbered file.
#[derive(Debug, Clone, Copy)]
struct Migration {
    version: u32,
    name: &'static str,
    sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $file:literal),* $(,)?) => {
        &[$(Migration {
            version: $version,
            name: $file,
            sql: include_str!(concat!("../../../../schemas/clickhouse/", $file, ".sql")),
        }),*]
    };
}

const MIGRATIONS: &[Migration] = migrations![1 "0001_windows_1m", 2 "0002_anomalies", 3 "0003_windows", 4 "0004_sensors", 5 "0005_quality_1m", 6 "0006_quality"];

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigrationReport {
    /// Names of the files applied now.
    pub applied: Vec<String>,
    /// Names of those that had been applied before.
    pub already: Vec<String>,
    /// Numbers in the database that this version does not have: a newer one was here.
    pub newer: Vec<u32>,
}

/// After how many days the TTL of a table drops its rows; `None` for a table that keeps them, or is none of ours.
pub fn days_kept(table: &str) -> Option<u32> {
    let of_table =
        MIGRATIONS.iter().filter(|migration| migration.name.split_once('_').is_some_and(|(_, name)| name == table));
    of_table.rev().find_map(|migration| {
        let (_, ttl) = migration.sql.split_once("\nTTL ")?;
        let (_, interval) = ttl.split_once("INTERVAL ")?;
        interval.split_once(" DAY")?.0.trim().parse().ok()
    })
}

/// Applies what is missing. `key` are the names of `event.key`.
pub async fn migrate(hot_store: &HotStoreConfig, key: &[String]) -> anyhow::Result<MigrationReport> {
    migrate_with(hot_store, key, MIGRATIONS).await
}

/// The names of the files that [`migrate`] would apply. Changes nothing.
pub async fn pending(hot_store: &HotStoreConfig, key: &[String]) -> anyhow::Result<Vec<String>> {
    let clickhouse = ClickHouseHttp::new(hot_store)?;
    let table = format!(
        "SELECT count() FROM system.tables WHERE database = '{}' AND name = 'schema_migrations'",
        hot_store.database
    );
    let recorded = if clickhouse.execute(&table).await? == "0" {
        BTreeMap::new()
    } else {
        recorded_checksums(&clickhouse, &hot_store.database).await?
    };
    let mut missing = Vec::new();
    for migration in MIGRATIONS {
        match recorded.get(&migration.version) {
            None => missing.push(migration.name.to_owned()),
            Some(recorded) => require_unchanged(*migration, recorded, &migration.render(&hot_store.database, key))?,
        }
    }
    Ok(missing)
}

/// Waits until ClickHouse answers at all, for at most this long.
pub async fn wait_for_clickhouse(hot_store: &HotStoreConfig, patience: Duration) -> anyhow::Result<()> {
    let clickhouse = ClickHouseHttp::new(hot_store)?;
    let deadline = Instant::now() + patience;
    loop {
        match clickhouse.execute("SELECT 1").await {
            Err(ClickHouseError::Unavailable { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            other => return other.map(|_| ()).advise("cannot reach the hot store", "check hot_store.url"),
        }
    }
}

async fn migrate_with(
    hot_store: &HotStoreConfig,
    key: &[String],
    migrations: &[Migration],
) -> anyhow::Result<MigrationReport> {
    let clickhouse = ClickHouseHttp::new(hot_store)?;
    let database = hot_store.database.as_str();
    create_bookkeeping(&clickhouse, database).await.map_err(advise_on_refusal)?;
    let recorded = recorded_checksums(&clickhouse, database).await.map_err(advise_on_refusal)?;
    let mut report = MigrationReport::default();
    report.newer.extend(recorded.keys().filter(|version| migrations.iter().all(|known| known.version != **version)));
    for migration in migrations {
        let statements = migration.render(database, key);
        if let Some(recorded) = recorded.get(&migration.version) {
            require_unchanged(*migration, recorded, &statements)?;
            report.already.push(migration.name.to_owned());
            continue;
        }
        for statement in statements_of(&statements) {
            clickhouse.execute(statement).await.map_err(advise_on_refusal).advise(
                format!("migration {} could not be applied", migration.name),
                "mend what ClickHouse complains about and run `kappa migrate` again: it goes on where it stopped",
            )?;
        }
        record(&clickhouse, database, *migration, &checksum(&statements)).await.map_err(advise_on_refusal)?;
        report.applied.push(migration.name.to_owned());
    }
    Ok(report)
}

impl Migration {
    /// The SQL for this database and these key fields.
    fn render(self, database: &str, key: &[String]) -> String {
        let columns = key.iter().enumerate().map(|(index, name)| {
            // The first field has many values (the sensors), the others few.
            let kind = if index == 0 { "String CODEC(ZSTD(1))" } else { "LowCardinality(String)" };
            format!("`{name}` {kind},")
        });
        let columns: Vec<String> = columns.collect();
        let names: Vec<String> = key.iter().map(|name| format!("`{name}`")).collect();
        self.sql
            .replace("{database}", &format!("`{database}`"))
            .replace("{key_columns}", &columns.join("\n    "))
            .replace("{key}", &names.join(", "))
    }
}

async fn create_bookkeeping(clickhouse: &ClickHouseHttp, database: &str) -> Result<(), ClickHouseError> {
    let exists = format!("SELECT count() FROM system.databases WHERE name = '{database}'");
    if clickhouse.execute(&exists).await? == "0" {
        // Only then: the right to create databases is not needed where somebody else has done it.
        clickhouse.execute(&format!("CREATE DATABASE IF NOT EXISTS `{database}`")).await?;
    }
    let table = format!(
        "CREATE TABLE IF NOT EXISTS `{database}`.schema_migrations (\
         version UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) \
         ENGINE = ReplacingMergeTree ORDER BY version SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
    );
    clickhouse.execute(&table).await?;
    Ok(())
}

async fn recorded_checksums(
    clickhouse: &ClickHouseHttp,
    database: &str,
) -> Result<BTreeMap<u32, String>, ClickHouseError> {
    let query = format!("SELECT version, checksum FROM `{database}`.schema_migrations FINAL ORDER BY version");
    let rows = clickhouse.rows(&query).await?;
    let recorded = rows.iter().filter_map(|row| match row.as_slice() {
        [version, checksum] => Some((version.parse().ok()?, checksum.clone())),
        _ => None,
    });
    Ok(recorded.collect())
}

async fn record(
    clickhouse: &ClickHouseHttp,
    database: &str,
    migration: Migration,
    checksum: &str,
) -> Result<(), ClickHouseError> {
    let Migration { version, name, .. } = migration;
    // A SELECT, not VALUES: it is a plain statement for every proxy and engine.
    let insert = format!(
        "INSERT INTO `{database}`.schema_migrations (version, name, checksum) \
         SELECT toUInt32({version}), '{name}', '{checksum}'"
    );
    clickhouse.execute(&insert).await?;
    Ok(())
}

fn require_unchanged(migration: Migration, recorded: &str, statements: &str) -> anyhow::Result<()> {
    if recorded == checksum(statements) {
        return Ok(());
    }
    Err(advised(
        format!("migration {} was applied with another text than it has now", migration.name),
        "if event.key was changed, use another hot_store.database, or drop this one and replay the log into a new group; \
         if the file was edited, undo that and put the change into a file with the next number",
    ))
}

fn checksum(statements: &str) -> String {
    format!("{:032x}", xxh3_128(statements.as_bytes()))
}

/// A file cut at the semicolons that end a line.
fn statements_of(sql: &str) -> impl Iterator<Item = &str> {
    let is_more_than_comments = |statement: &&str| {
        statement.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with("--"))
    };
    sql.split(";\n").map(str::trim).filter(is_more_than_comments)
}

fn advise_on_refusal(error: ClickHouseError) -> anyhow::Error {
    let advice = match &error {
        ClickHouseError::Unavailable { .. } => {
            "check hot_store.url, and that ClickHouse's HTTP port is reachable from here"
        }
        refused if refused.is_about_access() => {
            "check hot_store.user and hot_store.password_file; migrations need CREATE, and SELECT and INSERT on the database"
        }
        ClickHouseError::Refused { .. } => return error.into(),
    };
    advised(error.to_string(), advice)
}

#[cfg(test)]
mod tests;
