use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::*;
use crate::config::Sources;

const AVSC: &str = r#"{"type":"record","name":"R","fields":[]}"#;

/// A registry of a few schemas. While `broken` is above zero, each request counts it down and gets an outage instead.
#[derive(Default)]
struct FakeRegistry {
    requests: AtomicUsize,
    broken: AtomicUsize,
    appears_after: AtomicUsize,
}

type Shared = State<Arc<FakeRegistry>>;

async fn serve(registry: Arc<FakeRegistry>) -> String {
    let app = Router::new()
        .route("/schemas/ids/{id}", get(by_id))
        .route("/schemas/guids/{guid}", get(by_guid))
        .route("/subjects", get(|| async { Json(json!(["a"])) }))
        .route("/subjects/{subject}/versions/{version}", get(by_version))
        .route("/subjects/{subject}/versions", post(registration).get(|| async { Json(json!([4, 1])) }))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(compatibility))
        .route("/config/{subject}", get(rule_of_subject))
        .route("/config", get(|| async { Json(json!({"compatibilityLevel": "BACKWARD"})) }))
        .with_state(registry);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

async fn by_id(State(registry): Shared, Path(id): Path<u32>) -> Response {
    let asked = registry.requests.fetch_add(1, Ordering::SeqCst);
    if registry.broken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        return outage(asked);
    }
    match id {
        1 => Json(json!({"schema": AVSC})).into_response(),
        2 => Json(json!({"schema": "syntax", "schemaType": "PROTOBUF"})).into_response(),
        3 => {
            let references = json!([
                {"name": "B", "subject": "b", "version": 1},
                {"name": "C", "subject": "c", "version": 1},
            ]);
            Json(json!({"schema": AVSC, "references": references})).into_response()
        }
        4 => Json(json!({"schema": AVSC, "references": [{"name": "L", "subject": "loop", "version": 1}]}))
            .into_response(),
        5 if asked >= registry.appears_after.load(Ordering::SeqCst) => Json(json!({"schema": AVSC})).into_response(),
        6 => StatusCode::NOT_FOUND.into_response(),
        _ => unknown(40403),
    }
}

/// Everything that is not an answer, one after the other.
fn outage(asked: usize) -> Response {
    match asked % 5 {
        0 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        1 => "<html>maintenance</html>".into_response(),
        2 => StatusCode::TOO_MANY_REQUESTS.into_response(),
        3 => (StatusCode::NOT_FOUND, "<html>no route</html>").into_response(),
        _ => {
            (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"error_code": 50001, "message": "store"}))).into_response()
        }
    }
}

async fn by_guid(Path(guid): Path<String>) -> Response {
    match guid.as_str() {
        "00010203-0405-0607-0809-0a0b0c0d0e0f" => Json(json!({"schema": AVSC, "guid": guid})).into_response(),
        "ffffffff-ffff-ffff-ffff-ffffffffffff" => (StatusCode::NOT_FOUND, "no such route").into_response(),
        _ => unknown(40403),
    }
}

async fn by_version(Path((subject, version)): Path<(String, String)>) -> Response {
    let reference = |subject: &str| json!([{"name": subject, "subject": subject, "version": 1}]);
    match (subject.as_str(), version.as_str()) {
        ("b", "1") => Json(json!({"schema": "B", "references": reference("d")})).into_response(),
        ("c", "1") => Json(json!({"schema": "C", "references": reference("d")})).into_response(),
        ("d", "1") => Json(json!({"schema": "D", "references": null})).into_response(),
        ("loop", "1") => Json(json!({"schema": "L", "references": reference("loop")})).into_response(),
        ("a", "latest") => Json(json!({"schema": AVSC, "id": 1, "version": 4})).into_response(),
        _ => unknown(40401),
    }
}

/// A registry that knows no references must not be sent any.
async fn registration(Json(body): Json<Value>) -> Response {
    let id = if body.get("references").is_some() { 8 } else { 7 };
    Json(json!({ "id": id })).into_response()
}

async fn rule_of_subject(Path(subject): Path<String>) -> Response {
    match subject.as_str() {
        "a" => Json(json!({"compatibilityLevel": "FULL_TRANSITIVE"})).into_response(),
        _ => unknown(40408),
    }
}

async fn compatibility(Path((subject, version)): Path<(String, String)>) -> Response {
    match (subject.as_str(), version.as_str()) {
        ("a", "4") => Json(json!({"is_compatible": false, "messages": ["field x has no default"]})).into_response(),
        _ => unknown(40401),
    }
}

fn unknown(code: i32) -> Response {
    (StatusCode::NOT_FOUND, Json(json!({"error_code": code, "message": "not found"}))).into_response()
}

fn config(url: &str, retry: &str) -> RegistryConfig {
    let sources =
        Sources::default().with_flag("registry.url", url, "t").with_flag("registry.unknown_id_retry", retry, "t");
    sources.load(crate::config::Needs::Registry).unwrap().config.registry
}

async fn client(registry: &Arc<FakeRegistry>, retry: &str) -> RegistryClient {
    RegistryClient::new(&config(&serve(Arc::clone(registry)).await, retry)).unwrap()
}

fn known(id: Option<i32>, references: &[&str]) -> SchemaVerdict {
    let references = references.iter().map(|text| (*text).to_owned()).collect();
    SchemaVerdict::Known(Arc::new(RegisteredSchema { id, avsc: AVSC.to_owned(), references }))
}

#[tokio::test]
async fn outages_of_every_kind_are_waited_for() {
    let registry = Arc::new(FakeRegistry { broken: 5.into(), ..FakeRegistry::default() });
    let board = StatusBoard::new("t");
    let client = client(&registry, "0s").await.with_board(Arc::clone(&board));
    assert_eq!(client.schema(SchemaReference::Id(1)).await, known(Some(1), &[]));
    assert_eq!(registry.requests.load(Ordering::SeqCst), 6);
    let health = &board.dependencies()[Dependency::Registry as usize];
    assert_eq!((health.ok, health.failures), (Some(true), 5));
}

#[tokio::test]
async fn a_refused_connection_is_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = RegistryClient::new(&config(&url, "0s")).unwrap();
    let answer = tokio::time::timeout(Duration::from_millis(500), client.schema(SchemaReference::Id(1))).await;
    assert!(answer.is_err(), "it must wait: {answer:?}");
    let error = client.subjects().await.unwrap_err();
    assert!(matches!(&error, RegistryError::Unavailable { detail, .. } if detail.contains("refused")), "{error}");
}

#[tokio::test]
async fn a_404_without_the_registrys_words_is_an_outage() {
    let client = client(&Arc::default(), "0s").await;
    let answer = tokio::time::timeout(Duration::from_millis(500), client.schema(SchemaReference::Id(6))).await;
    assert!(answer.is_err(), "it must wait: {answer:?}");
}

#[tokio::test]
async fn an_unknown_id_is_asked_for_again_and_then_given_up() {
    let registry = Arc::new(FakeRegistry { appears_after: 3.into(), ..FakeRegistry::default() });
    let client = client(&registry, "5s").await;
    assert_eq!(client.schema(SchemaReference::Id(5)).await, known(Some(5), &[]));

    let registry = Arc::default();
    let client = self::client(&registry, "300ms").await;
    let verdict = client.schema(SchemaReference::Id(99)).await;
    assert_eq!(verdict, SchemaVerdict::Unknown { detail: "not found".to_owned() });
    let asked = registry.requests.load(Ordering::SeqCst);
    assert!(asked >= 2, "asked {asked} times");
    assert_eq!(client.schema(SchemaReference::Id(99)).await, verdict);
    assert_eq!(registry.requests.load(Ordering::SeqCst), asked, "the answer is remembered for a while");
}

#[tokio::test]
async fn many_unknown_ids_do_not_wait_one_by_one() {
    let client = client(&Arc::default(), "200ms").await;
    let start = Instant::now();
    for id in 1000..1100 {
        assert!(matches!(client.schema(SchemaReference::Id(id)).await, SchemaVerdict::Unknown { .. }));
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn concurrent_questions_become_one() {
    let registry = Arc::default();
    let client = client(&registry, "0s").await;
    let answers = futures::future::join_all((0..50).map(|_| client.schema(SchemaReference::Id(1)))).await;
    assert!(answers.iter().all(|answer| *answer == known(Some(1), &[])));
    assert_eq!(registry.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn references_come_in_the_order_in_which_they_are_needed() {
    let client = client(&Arc::default(), "0s").await;
    assert_eq!(client.schema(SchemaReference::Id(3)).await, known(Some(3), &["D", "B", "C"]));
    let circle = client.schema(SchemaReference::Id(4)).await;
    assert!(matches!(&circle, SchemaVerdict::NotAvro { detail } if detail.contains("circle")), "{circle:?}");
}

#[tokio::test]
async fn other_formats_are_not_avro() {
    let verdict = client(&Arc::default(), "0s").await.schema(SchemaReference::Id(2)).await;
    let detail = "schema 2 is registered as PROTOBUF, not as AVRO".to_owned();
    assert_eq!(verdict, SchemaVerdict::NotAvro { detail });
}

#[tokio::test]
async fn guids() {
    let client = client(&Arc::default(), "0s").await;
    let guid = std::array::from_fn(|index| index as u8);
    assert_eq!(client.schema(SchemaReference::Guid(guid)).await, known(None, &[]));
    assert!(matches!(client.schema(SchemaReference::Guid([9; 16])).await, SchemaVerdict::Unknown { .. }));
    let without_endpoint = client.schema(SchemaReference::Guid([255; 16])).await;
    assert!(matches!(&without_endpoint, SchemaVerdict::Unknown { detail } if detail.contains("by GUID")));
}

#[tokio::test]
async fn subjects_versions_and_rules() {
    let client = client(&Arc::default(), "0s").await;
    let latest = client.latest("a").await.unwrap();
    assert_eq!((latest.id, latest.version, latest.schema_type.as_str()), (Some(1), 4, "AVRO"));
    assert!(matches!(client.latest("nobody").await, Err(RegistryError::NotFound(_))));
    assert_eq!(client.versions("a").await, Ok(vec![1, 4]));
    let plain = ProposedSchema { avsc: AVSC.to_owned(), references: Vec::new() };
    let referral = SchemaReferral { name: "B".to_owned(), subject: "b".to_owned(), version: 1 };
    let referring = ProposedSchema { references: vec![referral.clone()], ..plain.clone() };
    assert_eq!((client.register("a", &plain).await, client.register("a", &referring).await), (Ok(7), Ok(8)));
    assert_eq!(client.texts(&[referral]).await, Ok(vec!["D".to_owned(), "B".to_owned()]));
    let verdict = client.check_compatibility("a", 4, &plain).await.unwrap();
    assert_eq!((verdict.compatible, verdict.messages), (false, vec!["field x has no default".to_owned()]));
    assert!(matches!(client.check_compatibility("new", 1, &plain).await, Err(RegistryError::NotFound(_))));
    assert_eq!(client.rule("a").await.as_deref(), Ok("FULL_TRANSITIVE"));
    assert_eq!(client.rule("without").await.as_deref(), Ok("BACKWARD"));
}

/// Against a real registry, where the environment names one.
#[tokio::test]
async fn a_real_registry_is_understood() {
    let Ok(url) = std::env::var("REGISTRY_URL") else { return };
    let client = RegistryClient::new(&config(&url, "0s")).unwrap();
    let subject = format!("registry-test-{}-value", std::process::id());
    assert!(matches!(client.latest(&subject).await, Err(RegistryError::NotFound(_))));
    let proposed = ProposedSchema { avsc: AVSC.to_owned(), references: Vec::new() };
    let id = client.register(&subject, &proposed).await.unwrap();
    assert_eq!(client.register(&subject, &proposed).await, Ok(id));
    assert!(client.check_compatibility(&subject, 1, &proposed).await.unwrap().compatible);
    assert_eq!(client.versions(&subject).await, Ok(vec![1]));
    assert!(client.rule(&subject).await.is_ok());
    assert_eq!(client.latest(&subject).await.unwrap().id, Some(id));
    assert!(client.subjects().await.unwrap().contains(&subject));

    let verdict = client.schema(SchemaReference::Id(id)).await;
    assert!(matches!(&verdict, SchemaVerdict::Known(schema) if schema.avsc.contains("record")), "{verdict:?}");
    let patience = Duration::from_secs(10);
    for reference in [SchemaReference::Id(4_000_000), SchemaReference::Guid([7; 16])] {
        let verdict = tokio::time::timeout(patience, client.schema(reference)).await.unwrap();
        assert!(matches!(verdict, SchemaVerdict::Unknown { .. }), "{verdict:?}");
    }
    // Whether the rule allows this depends on how the registry is set up; here only its answer must be understood.
    let longer = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#;
    let longer = ProposedSchema { avsc: longer.to_owned(), references: Vec::new() };
    let verdict = client.check_compatibility(&subject, 1, &longer).await;
    assert!(verdict.is_ok(), "{verdict:?}");
}
