use std::sync::Mutex;
use std::time::Instant;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use url::Url;

use super::*;

/// Answers each of our statements with one row, and counts them; or refuses to answer at all.
#[derive(Debug, Default)]
struct FakeClickHouse {
    asked: u64,
    away: bool,
    /// How long an answer takes.
    takes: Duration,
}

type Fake = Arc<Mutex<FakeClickHouse>>;

async fn answer(State(fake): State<Fake>, RawQuery(query): RawQuery) -> Response {
    let (away, takes) = {
        let mut fake = fake.lock().unwrap();
        fake.asked += 1;
        (fake.away, fake.takes)
    };
    tokio::time::sleep(takes).await;
    if away {
        return (StatusCode::BAD_GATEWAY, "away").into_response();
    }
    let pairs: Vec<(String, String)> =
        url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
    let statement = pairs.iter().find(|(name, _)| name == "query").map(|pair| pair.1.as_str()).unwrap_or_default();
    if statement.contains("positionCaseInsensitive") {
        return "{\"sensor\":\"<b>\",\"site\":\"\"}\n".into_response();
    }
    "".into_response()
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

struct Running {
    url: String,
    fake: Fake,
    feeds: Arc<Feeds>,
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

async fn start(max_viewers: usize) -> Running {
    let fake = Fake::default();
    let click_house = serve(Router::new().fallback(answer).with_state(Arc::clone(&fake))).await;
    let status = r#"{"topic":"t","ready":true,"totals":{"events":5},"recent_rejects":[{"reason":"tombstone"}]}"#;
    let pipeline = serve(Router::new().fallback(move || async move { status })).await;
    let url = |address: SocketAddr| Url::parse(&format!("http://{address}/")).unwrap();
    let settings = Settings {
        max_viewers,
        ..Settings::new(SocketAddr::from(([127, 0, 0, 1], 0)), url(click_house), vec![url(pipeline)])
    };
    let dashboard = Dashboard::build(settings).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (url, feeds) = (dashboard.url(), dashboard.feeds());
    let task = tokio::spawn(dashboard.run_until_stopped(async move {
        let _ = stopped.await;
    }));
    Running { url, fake, feeds, stop, task }
}

impl Running {
    async fn get(&self, path: &str) -> (u16, reqwest::header::HeaderMap, String) {
        let response = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, response.text().await.unwrap())
    }

    /// Status and the sentence of an error.
    async fn refusal(&self, path: &str) -> (u16, String) {
        let (status, _, text) = self.get(path).await;
        let json: Value = serde_json::from_str(&text).unwrap();
        (status, json["error"].as_str().unwrap_or_default().to_owned())
    }

    async fn live_until(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let (_, _, text) = self.get("/api/live").await;
            let live: Value = serde_json::from_str(&text).unwrap();
            if wanted(&live) {
                return live;
            }
            assert!(Instant::now() < deadline, "{live}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap().unwrap();
    }
}

/// An open event stream, and what has come of it.
struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(running: &Running) -> Result<Self, u16> {
        let response = reqwest::get(format!("{}/api/events", running.url)).await.unwrap();
        if !response.status().is_success() {
            return Err(response.status().as_u16());
        }
        Ok(Self { response, text: String::new() })
    }

    async fn read_until(&mut self, wanted: impl Fn(&str) -> bool) {
        while !wanted(&self.text) {
            let chunk = tokio::time::timeout(Duration::from_mins(1), self.response.chunk()).await.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
        }
    }
}

#[tokio::test]
async fn the_page_and_what_operations_ask() {
    let running = start(10).await;
    let (status, headers, page) = running.get("/").await;
    assert_eq!((status, page.contains("<title>Kappa</title>")), (200, true));
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    for (path, kind) in [("main.js", "text/javascript"), ("base.css", "text/css"), ("inter.woff2", "font/woff2")] {
        let (status, headers, _) = running.get(&format!("/assets/{path}")).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap().starts_with(kind)), (200, true), "{path}");
    }
    for nothing in ["/assets/../Cargo.toml", "/assets/%2e%2e%2fCargo.toml", "/assets/Cargo.toml", "/x", "/api/x"] {
        assert_eq!(running.refusal(nothing).await.0, 404, "{nothing}");
    }
    running.live_until(|live| live["fleet"]["click_house"]["ok"] == true).await;
    assert_eq!(running.get("/healthz").await.0, 200);
    assert_eq!(running.get("/readyz").await.0, 200);
    let (_, _, metrics) = running.get("/metrics").await;
    assert!(metrics.contains("kappa_dashboard_clickhouse_up 1") && metrics.contains("kappa_dashboard_queries_total "));
    running.end().await;
}

#[tokio::test]
async fn what_is_not_valid_is_refused_with_a_sentence_and_costs_clickhouse_nothing() {
    let running = start(10).await;
    running.live_until(|live| live["fleet"]["click_house"]["ok"] == true).await;
    let long = "a".repeat(300);
    let path = format!("/api/series?sensor={long}");
    let before = running.fake.lock().unwrap().asked;
    for (path, wrong) in [
        ("/api/series", "sensor is missing"),
        (path.as_str(), "300 bytes"),
        ("/api/series?sensor=a&from=0", "longer than"),
        ("/api/series?sensor=a&from=9&to=3", "before"),
        ("/api/series?sensor=a&param_sensor=b", "no parameter"),
        ("/api/series?sensor=a&max_execution_time=0", "no parameter"),
        ("/api/series?sensor=a&sensor=b", "twice"),
        ("/api/anomalies?limit=100000", "limit"),
        ("/api/anomalies?min_score=1%20OR%201", "min_score"),
        ("/api/anomalies?query=DROP", "no parameter"),
        ("/api/sensors?q=a&limit=9", "no parameter"),
    ] {
        let (status, sentence) = running.refusal(path).await;
        assert_eq!(status, 400, "{path}");
        assert!(sentence.contains(wrong), "{path}: {sentence}");
    }
    // Nobody watches, so the poller rests meanwhile.
    assert_eq!(running.fake.lock().unwrap().asked, before);
    let (status, sentence) = running.refusal("/api/series?sensor=nobody").await;
    assert_eq!((status, sentence.contains("\"nobody\"")), (404, true), "{sentence}");
    let (_, _, found) = running.get("/api/sensors?q=%3Cb%3E").await;
    assert_eq!(found, r#"{"sensors":[{"sensor":"<b>","site":""}],"truncated":false}"#);
    running.end().await;
}

#[tokio::test]
async fn all_viewers_together_cost_what_one_costs() {
    let running = start(30).await;
    let mut streams = Vec::new();
    for _ in 0..30 {
        streams.push(Stream::open(&running).await.unwrap());
    }
    assert_eq!(Stream::open(&running).await.err(), Some(503), "one more than are allowed");
    let before = running.fake.lock().unwrap().asked;
    let started = Instant::now();
    for stream in &mut streams {
        stream.read_until(|text| text.matches("event: fleet").count() >= 3).await;
        assert!(stream.text.contains("event: pulse") && stream.text.contains("\"topic\":\"t\""));
        assert!(!stream.text.contains("recent_rejects"), "samples are asked for, not sent each second");
    }
    let asked = running.fake.lock().unwrap().asked - before;
    let looks = started.elapsed().as_secs() / 2 + 2;
    assert!(asked <= looks * 4, "{asked} statements in {:?} for 30 viewers", started.elapsed());
    assert_eq!(running.feeds.fleet.receiver_count(), 30);
    drop(streams);
    // Places are free again.
    let deadline = Instant::now() + Duration::from_secs(30);
    while running.feeds.fleet.receiver_count() > 0 {
        assert!(Instant::now() < deadline, "closed streams keep their places");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Stream::open(&running).await.unwrap().read_until(|text| text.contains("event: fleet")).await;
    running.end().await;
}

#[tokio::test]
async fn an_outage_of_clickhouse_is_told_and_heals() {
    let running = start(10).await;
    let mut stream = Stream::open(&running).await.unwrap();
    stream.read_until(|text| text.contains("\"ok\":true")).await;
    running.fake.lock().unwrap().away = true;
    let live = running.live_until(|live| live["fleet"]["click_house"]["ok"] == false).await;
    let answering = &live["fleet"]["click_house"];
    assert!(answering["error"].as_str().unwrap().contains("502"), "{answering}");
    assert!(answering["failing_since_ms"].is_i64() && answering["as_of_ms"].is_i64(), "{answering}");
    assert_eq!(running.refusal("/api/anomalies").await.0, 503);
    assert_eq!(running.get("/readyz").await.0, 200, "the page is there to say so");
    running.fake.lock().unwrap().away = false;
    let live = running.live_until(|live| live["fleet"]["click_house"]["ok"] == true).await;
    assert!(live["fleet"]["click_house"]["failing_since_ms"].is_null());
    running.end().await;
}

#[tokio::test]
async fn more_questions_than_there_are_places_wait_a_moment_and_are_refused() {
    let running = start(10).await;
    running.live_until(|live| live["fleet"]["click_house"]["ok"] == true).await;
    running.fake.lock().unwrap().takes = Duration::from_secs(4);
    let asking = (0..MAX_QUERIES + 6).map(|_| running.get("/api/sensors?q=a"));
    let statuses: Vec<_> = futures::future::join_all(asking).await.into_iter().map(|answer| answer.0).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), MAX_QUERIES, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 6, "{statuses:?}");
    running.end().await;
}

#[tokio::test]
async fn samples_of_refused_records_come_from_memory() {
    let running = start(10).await;
    running.live_until(|live| live["pulse"]["pipelines"][0]["status"]["topic"] == "t").await;
    let (_, _, text) = running.get("/api/dead-letters").await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer[0]["samples"][0]["reason"], "tombstone");
    running.end().await;
}

#[tokio::test]
async fn names_of_columns_are_plain_or_refused() {
    let url = Url::parse("http://127.0.0.1:1").unwrap();
    let settings = Settings::new(SocketAddr::from(([127, 0, 0, 1], 0)), url, Vec::new());
    for column in ["", "a b", "a`; DROP TABLE x", "1a", "ä"] {
        let settings = Settings { sensor_column: column.to_owned(), ..settings.clone() };
        assert!(Dashboard::build(settings).await.unwrap_err().to_string().contains("--sensor-column"), "{column:?}");
    }
    let settings = Settings { window: Duration::from_secs(7), ..settings };
    assert!(Dashboard::build(settings).await.unwrap_err().to_string().contains("--window"));
}
