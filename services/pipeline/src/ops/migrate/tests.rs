use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::*;
use crate::config::{Needs, Sources};
use crate::ops::advice::render;

/// Answers like ClickHouse as far as migrations ask, and remembers what it was told.
#[derive(Default)]
struct FakeClickHouse {
    statements: Vec<String>,
    database: bool,
    /// Version and checksum.
    recorded: Vec<(u32, String)>,
    fail_on: Option<&'static str>,
}

type Shared = Arc<Mutex<FakeClickHouse>>;

async fn answer(State(fake): State<Shared>, statement: String) -> Response {
    let mut fake = fake.lock().unwrap();
    fake.statements.push(statement.clone());
    if fake.fail_on.is_some_and(|text| statement.contains(text)) {
        let refusal = "Code: 497. DB::Exception: kappa: Not enough privileges";
        return (StatusCode::FORBIDDEN, [("X-ClickHouse-Exception-Code", "497")], refusal).into_response();
    }
    if statement.contains("FROM system.databases") {
        return format!("{}\n", u8::from(fake.database)).into_response();
    }
    if statement.contains("FROM system.tables") {
        return format!("{}\n", u8::from(!fake.recorded.is_empty())).into_response();
    }
    if statement.starts_with("SELECT version, checksum") {
        let lines: Vec<_> =
            fake.recorded.iter().map(|(version, checksum)| format!("{version}\t{checksum}\n")).collect();
        return lines.concat().into_response();
    }
    if statement.starts_with("INSERT INTO `readings`.schema_migrations") {
        let number = statement.split("toUInt32(").nth(1).unwrap().split(')').next().unwrap().parse().unwrap();
        let checksum = statement.split('\'').rev().nth(1).unwrap().to_owned();
        fake.recorded.push((number, checksum));
    }
    if statement.starts_with("CREATE DATABASE") {
        fake.database = true;
    }
    StatusCode::OK.into_response()
}

async fn start(fake: &Shared) -> HotStoreConfig {
    let app = Router::new().fallback(answer).with_state(Arc::clone(fake));
    let app = app
        .layer(axum::middleware::map_response(async |response: Response| ([("X-ClickHouse-Query-Id", "1")], response)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    hot_store(&url, "readings")
}

fn hot_store(url: &str, database: &str) -> HotStoreConfig {
    let sources =
        Sources::default().with_flag("hot_store.url", url, "t").with_flag("hot_store.database", database, "t");
    sources.load(Needs::HotStore).unwrap().config.hot_store
}

fn key() -> Vec<String> {
    vec!["sensor_id".to_owned(), "metric".to_owned()]
}

#[tokio::test]
async fn applied_once_in_order_and_recorded() {
    let fake = Shared::default();
    let config = start(&fake).await;
    let names: Vec<_> = MIGRATIONS.iter().map(|migration| migration.name.to_owned()).collect();
    assert_eq!(pending(&config, &key()).await.unwrap(), names);
    assert_eq!(migrate(&config, &key()).await.unwrap().applied, names);
    assert!(pending(&config, &key()).await.unwrap().is_empty());
    let statements = std::mem::take(&mut fake.lock().unwrap().statements);
    let created: Vec<_> = statements.iter().filter(|statement| statement.contains("CREATE")).collect();
    assert_eq!(created.len(), 2 + MIGRATIONS.len(), "database, bookkeeping, and one for each file");
    assert!(created[2].contains("`readings`.windows_1m"), "{}", created[2]);
    assert!(created[2].contains("`sensor_id` String"), "{}", created[2]);
    assert!(statements.iter().all(|statement| !statement.contains('{')), "everything is filled in");

    let again = migrate(&config, &key()).await.unwrap();
    assert_eq!((again.applied.len(), again.already), (0, names));
    assert!(!fake.lock().unwrap().statements.iter().any(|statement| statement.contains("windows_1m")));
}

#[tokio::test]
async fn an_edited_file_is_refused() {
    let fake = Shared::default();
    let config = start(&fake).await;
    migrate(&config, &key()).await.unwrap();
    let error = migrate(&config, &["site".to_owned()]).await.unwrap_err();
    let text = render(&error);
    assert!(text.contains("0001_windows_1m was applied with another text"), "{text}");
    assert!(text.contains("what to do: if event.key was changed"), "{text}");
    assert!(pending(&config, &["site".to_owned()]).await.is_err());
}

#[tokio::test]
async fn an_interrupted_migration_goes_on_where_it_stopped() {
    let fake = Shared::default();
    fake.lock().unwrap().fail_on = Some("windows AS");
    let config = start(&fake).await;
    let text = render(&migrate(&config, &key()).await.unwrap_err());
    assert!(text.contains("0003_windows could not be applied") && text.contains("Not enough privileges"), "{text}");
    fake.lock().unwrap().fail_on = None;
    let report = migrate(&config, &key()).await.unwrap();
    let rest =
        ["0003_windows".to_owned(), "0004_sensors".to_owned(), "0005_quality_1m".to_owned(), "0006_quality".to_owned()];
    assert_eq!((report.applied.as_slice(), report.already.len()), (rest.as_slice(), 2));
}

#[tokio::test]
async fn a_newer_database_is_noticed() {
    let fake = Shared::default();
    fake.lock().unwrap().recorded.push((77, "of the future".to_owned()));
    let config = start(&fake).await;
    assert_eq!(migrate(&config, &key()).await.unwrap().newer, [77]);
}

#[tokio::test]
async fn nobody_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let text = render(&migrate(&hot_store(&url, "readings"), &key()).await.unwrap_err());
    assert!(text.contains("does not answer") && text.contains("what to do: check hot_store.url"), "{text}");
}

#[test]
fn files_are_numbered_and_cut_into_statements() {
    for (index, migration) in MIGRATIONS.iter().enumerate() {
        assert_eq!(migration.version as usize, index + 1);
        assert!(migration.name.starts_with(&format!("{:04}_", migration.version)));
    }
    let cut: Vec<_> = statements_of("-- a\nCREATE 1;\n\n-- b\nCREATE 2;\n-- nothing more\n").collect();
    assert_eq!(cut, ["-- a\nCREATE 1", "-- b\nCREATE 2"]);
}

/// Against the real engine, where the environment names one.
#[tokio::test]
async fn the_real_engine_takes_the_files_and_the_view_is_exact() {
    let Ok(url) = std::env::var("CLICKHOUSE_URL") else { return };
    let database = format!("migrate_test_{}", std::process::id());
    let config = hot_store(&url, &database);
    let (left, right) = (key(), key());
    let (left, right) = tokio::join!(migrate(&config, &left), migrate(&config, &right));
    left.unwrap();
    right.unwrap();
    assert_eq!(migrate(&config, &key()).await.unwrap().already.len(), MIGRATIONS.len());

    let clickhouse = ClickHouseHttp::new(&config).unwrap();
    // Of the last minutes: what is older than the TTL is gone at once.
    let minute = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 60 * 60;
    // Values 1, 2, 3, 4 and 10 of one series and minute: three on partition 0, the last of them late, two on partition
    // 1; the row of version 1 is overtaken by that of version 3.
    let columns = "sensor_id, metric, window_start, topic, partition, segment, count, sum, min, max, m2, first_value, \
                   first_time, last_value, last_time, anomalies, max_score, bad_quality, closed, version";
    for (place, sums, first, last, rest) in [
        ("0, -1", "1, 1, 1, 1, 0", (1, "1"), (1, "1"), "0, 0, 0, false, 1"),
        ("0, -1", "2, 3, 1, 2, 0.5", (1, "1"), (2, "2"), "0, 1.5, 0, true, 3"),
        ("0, 7", "1, 10, 10, 10, 0", (10, "2"), (10, "2"), "1, 9, 1, true, 9"),
        ("1, -1", "2, 7, 3, 4, 0.5", (4, "0.5"), (3, "1.5"), "0, 2, 0, true, 5"),
    ] {
        let row = format!(
            "'s', 'T', {minute}, 't', {place}, {sums}, {}, {minute} + {}, {}, {minute} + {}, {rest}",
            first.0, first.1, last.0, last.1
        );
        let insert = format!("INSERT INTO `{database}`.windows_1m ({columns}) SELECT {row}");
        clickhouse.execute(&insert).await.unwrap();
    }
    let query = format!(
        "SELECT count, sum, min, max, mean, round(stddev, 6), first_value, last_value, toUnixTimestamp(last_time) - {minute}, \
         anomalies, max_score, bad_quality, closed, late FROM `{database}`.windows WHERE sensor_id = 's'"
    );
    let rows = clickhouse.rows(&query).await.unwrap();
    // Deviation of 1, 2, 3, 4, 10 from their mean 4: (9 + 4 + 1 + 0 + 36) / 5 = 10, whose root it is.
    let expected =
        ["5", "20", "1", "10", "4", "3.162278", "4", "10", "2", "1", "9", "1", "true", "1"].map(str::to_owned);
    assert_eq!(rows, [expected.to_vec()]);
    clickhouse.execute(&format!("DROP DATABASE `{database}`")).await.unwrap();
}
