use reqwest::Client;

use super::*;

const SUBJECT: &str = "sensor-readings-value";

async fn started() -> (EmbeddedRegistry, String) {
    let registry = EmbeddedRegistry::default();
    let url = registry.serve(([127, 0, 0, 1], 0).into(), std::future::pending()).await.unwrap();
    (registry, url)
}

async fn get_json(url: String) -> (u16, Value) {
    let response = Client::new().get(url).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn post_json(url: String, body: Value) -> (u16, Value) {
    let request = Client::new().post(url).header("content-type", "application/vnd.schemaregistry.v1+json");
    let response = request.body(body.to_string()).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_registered_schema_is_found_by_id_guid_and_version() {
    let (_registry, url) = started().await;
    let body = json!({"schema": SENSOR_READING_SCHEMA});
    let (status, first) = post_json(format!("{url}/subjects/{SUBJECT}/versions"), body.clone()).await;
    assert_eq!((status, &first["id"]), (200, &json!(1)));
    let (_, again) = post_json(format!("{url}/subjects/{SUBJECT}/versions"), body.clone()).await;
    assert_eq!(again, first);

    let (status, by_id) = get_json(format!("{url}/schemas/ids/1")).await;
    assert_eq!((status, &by_id["schema"]), (200, &json!(SENSOR_READING_SCHEMA)));
    assert_eq!(by_id.get("schemaType"), None);
    let guid = first["guid"].as_str().unwrap();
    let (status, by_guid) = get_json(format!("{url}/schemas/guids/{guid}")).await;
    assert_eq!((status, &by_guid["schema"]), (200, &json!(SENSOR_READING_SCHEMA)));

    assert_eq!(get_json(format!("{url}/subjects")).await.1, json!([SUBJECT]));
    assert_eq!(get_json(format!("{url}/subjects/{SUBJECT}/versions")).await.1, json!([1]));
    for version in ["1", "latest"] {
        let (status, found) = get_json(format!("{url}/subjects/{SUBJECT}/versions/{version}")).await;
        assert_eq!((status, &found["id"], &found["version"]), (200, &json!(1), &json!(1)));
    }
    let (status, found) = post_json(format!("{url}/subjects/{SUBJECT}"), body).await;
    assert_eq!((status, &found["version"]), (200, &json!(1)));
}

#[tokio::test]
async fn what_is_not_there_is_refused_with_its_error_code() {
    let (_registry, url) = started().await;
    post_json(format!("{url}/subjects/{SUBJECT}/versions"), json!({"schema": SENSOR_READING_SCHEMA})).await;
    for (path, code) in [
        ("schemas/ids/99".to_owned(), 40_403),
        ("schemas/guids/00000000-0000-0000-0000-000000000000".to_owned(), 40_403),
        ("subjects/nobody/versions".to_owned(), 40_401),
        (format!("subjects/{SUBJECT}/versions/7"), 40_402),
    ] {
        let (status, refusal) = get_json(format!("{url}/{path}")).await;
        assert_eq!((status, &refusal["error_code"]), (404, &json!(code)), "{path}");
    }
    let nonsense = json!({"schema": r#"{"type":"nonsense"}"#});
    let (status, refusal) = post_json(format!("{url}/subjects/{SUBJECT}/versions"), nonsense).await;
    assert_eq!((status, &refusal["error_code"]), (422, &json!(42_201)));
}

#[tokio::test]
async fn an_incompatible_schema_is_told_apart() {
    let (registry, url) = started().await;
    registry.register(SUBJECT, "AVRO", SENSOR_READING_SCHEMA).unwrap();
    let check = format!("{url}/compatibility/subjects/{SUBJECT}/versions/latest");
    let mut grown: Value = serde_json::from_str(SENSOR_READING_SCHEMA).unwrap();
    let new_field = |default: bool| {
        if default {
            json!({"name": "note", "type": "string", "default": ""})
        } else {
            json!({"name": "note", "type": "string"})
        }
    };
    grown["fields"].as_array_mut().unwrap().push(new_field(true));
    let (_, answer) = post_json(check.clone(), json!({"schema": grown.to_string()})).await;
    assert_eq!(answer, json!({"is_compatible": true}));
    *grown["fields"].as_array_mut().unwrap().last_mut().unwrap() = new_field(false);
    let (_, answer) = post_json(check, json!({"schema": grown.to_string()})).await;
    assert_eq!(answer, json!({"is_compatible": false}));
    let (status, _) =
        post_json(format!("{url}/subjects/{SUBJECT}/versions"), json!({"schema": grown.to_string()})).await;
    assert_eq!(status, 409);
    assert_eq!(registry.register("other", "JSON", "{}").unwrap().id, 2);
}
