//! ClickHouse: there, migrated, writable, and with the same time as here.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Check;
use crate::config::Config;
use crate::ops::clickhouse_http::{ClickHouseError, ClickHouseHttp};
use crate::ops::migrate;

/// Clocks further apart than this are worth a look, seconds.
const CLOCK_TOLERANCE: f64 = 2.0;

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let clickhouse = match ClickHouseHttp::new(&config.hot_store) {
        Ok(clickhouse) => clickhouse,
        Err(error) => return vec![Check::error("hot store", &error)],
    };
    let version = match clickhouse.execute("SELECT version()").await {
        Ok(version) => version,
        Err(error) => {
            let advice = "check hot_store.url, hot_store.user and hot_store.password_file";
            return vec![Check::fail("hot store", error.to_string(), advice)];
        }
    };
    let answers = Check::ok("hot store", format!("ClickHouse {version} at {}", config.hot_store.url));
    let (tables, insert, clock) =
        tokio::join!(check_tables(config), check_insert(config, &clickhouse), check_clock(&clickhouse));
    vec![answers, tables, insert, clock]
}

async fn check_tables(config: &Config) -> Check {
    const NAME: &str = "hot store tables";
    let pending = match migrate::pending(&config.hot_store, &config.event.key).await {
        Ok(pending) => pending,
        Err(error) if error.downcast_ref().is_some_and(ClickHouseError::is_about_access) => {
            let detail = format!("{} may not look at schema_migrations", config.hot_store.user);
            return Check::warn(NAME, detail, "run `kappa doctor` or `kappa migrate` with a user who may");
        }
        Err(error) => return Check::error(NAME, &error),
    };
    if pending.is_empty() {
        return Check::ok(NAME, format!("{} is migrated", config.hot_store.database));
    }
    Check::fail(NAME, format!("missing: {}", pending.join(", ")), "run `kappa migrate`")
}

async fn check_insert(config: &Config, clickhouse: &ClickHouseHttp) -> Check {
    const NAME: &str = "hot store insert";
    let database = &config.hot_store.database;
    for table in ["windows_1m", "anomalies", "sensors"] {
        // No rows, but the right to insert them is needed.
        let insert = format!("INSERT INTO `{database}`.{table} (`partition`) SELECT toInt32(0) WHERE 0");
        if let Err(error) = clickhouse.execute(&insert).await {
            let advice = format!("run `kappa migrate`, and GRANT INSERT ON {database}.* TO {}", config.hot_store.user);
            return Check::fail(NAME, format!("{table}: {error}"), advice);
        }
    }
    Check::ok(NAME, format!("{} may insert", config.hot_store.user))
}

async fn check_clock(clickhouse: &ClickHouseHttp) -> Check {
    const NAME: &str = "clock";
    let before = now();
    let there = clickhouse.execute("SELECT toUnixTimestamp64Milli(now64(3))").await;
    let after = now();
    let Some(there) = there.ok().and_then(|text| text.trim().parse::<f64>().ok()) else {
        return Check::warn(NAME, "ClickHouse does not tell the time", "compare the clocks yourself");
    };
    // Half a round trip is what cannot be told from skew.
    let apart = (there / 1000.0 - f64::midpoint(before, after)).abs() - (after - before) / 2.0;
    if apart <= CLOCK_TOLERANCE {
        return Check::ok(NAME, "the same here and at ClickHouse");
    }
    let advice = "synchronise the clocks; results stay right, but lag, freshness and TTL are shown or applied wrongly";
    Check::warn(NAME, format!("{apart:.1} s apart from ClickHouse's"), advice)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}
