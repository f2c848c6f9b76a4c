use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::*;

/// The parameters of each request.
type Asked = Arc<Mutex<Vec<Vec<(String, String)>>>>;

#[derive(Debug, PartialEq, Deserialize)]
struct Row {
    name: String,
    size: u64,
}

async fn answer(State(asked): State<Asked>, method: Method, RawQuery(query): RawQuery) -> Response {
    assert_eq!(method, Method::GET, "ClickHouse runs a GET for reading only");
    let pairs: Vec<_> = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
    let statement = pairs.iter().find(|(name, _)| name == "query").map(|(_, value)| value.clone()).unwrap_or_default();
    asked.lock().unwrap().push(pairs);
    match statement.as_str() {
        "too much" => {
            (StatusCode::BAD_REQUEST, [("X-ClickHouse-Exception-Code", "158")], "Code: 158. limit").into_response()
        }
        "refused" => {
            (StatusCode::NOT_FOUND, [("X-ClickHouse-Exception-Code", "60")], "Code: 60. no table").into_response()
        }
        "proxy" => (StatusCode::BAD_GATEWAY, "nobody home").into_response(),
        "strange" => "{\"name\":1}\n".into_response(),
        "endless" => "x".repeat(MAX_ANSWER_BYTES + 1).into_response(),
        _ => "{\"name\":\"a\\u0000b\",\"size\":18446744073709551615}\n{\"name\":\"\",\"size\":0}\n".into_response(),
    }
}

async fn start() -> (ClickHouse, Asked) {
    let asked = Asked::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(answer).with_state(Arc::clone(&asked));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (client(address), asked)
}

fn client(address: SocketAddr) -> ClickHouse {
    let url = Url::parse(&format!("http://{address}")).unwrap();
    let settings = Settings::new(SocketAddr::from(([127, 0, 0, 1], 0)), url, Vec::new());
    ClickHouse::new(&settings, Arc::default()).unwrap()
}

#[tokio::test]
async fn rows_come_by_the_names_of_their_columns() {
    let (click_house, _) = start().await;
    let rows: Vec<Row> = click_house.rows("SELECT", &[], FOR_A_VIEWER).await.unwrap();
    assert_eq!(rows[0], Row { name: "a\0b".to_owned(), size: u64::MAX });
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn hostile_texts_stay_parameters_and_never_touch_the_statement() {
    let (click_house, asked) = start().await;
    let statement = "SELECT {x:String}";
    for (hostile, encoded) in [
        ("plain", "plain"),
        ("", ""),
        ("' OR 1=1 --", "\\' OR 1=1 --"),
        ("\\' OR 1=1 --", "\\\\\\' OR 1=1 --"),
        ("'; DROP TABLE windows_1m; --", "\\'; DROP TABLE windows_1m; --"),
        ("a\tb\nc\rd\0e", "a\\tb\\nc\\rd\\0e"),
        ("\\N", "\\\\N"),
        ("{x:Identifier}", "{x:Identifier}"),
        ("&query=DROP%20TABLE+x&readonly=0#", "&query=DROP%20TABLE+x&readonly=0#"),
        ("ü😀\u{202e}", "ü😀\u{202e}"),
    ] {
        let parameters = [("x", Parameter::Text(hostile)), ("n", Parameter::Integer(-5)), ("f", Parameter::Float(0.5))];
        let _: Vec<Row> = click_house.rows(statement, &parameters, FOR_A_VIEWER).await.unwrap();
        let pairs = asked.lock().unwrap().pop().unwrap();
        let all =
            |name: &str| pairs.iter().filter(|pair| pair.0 == name).map(|pair| pair.1.as_str()).collect::<Vec<_>>();
        assert_eq!(all("query"), [statement], "{hostile:?}");
        assert_eq!(all("param_x"), [encoded], "{hostile:?}");
        assert_eq!((all("param_n"), all("param_f")), (vec!["-5"], vec!["0.5"]));
        assert!(all("readonly").is_empty());
        for bound in ["max_execution_time", "max_rows_to_read", "max_result_rows", "max_memory_usage"] {
            assert!(all(bound)[0].parse::<u64>().unwrap() > 0, "{bound}");
        }
    }
}

#[tokio::test]
async fn failures_are_told_apart() {
    let (click_house, _) = start().await;
    let ask = async |statement| click_house.rows::<Row>(statement, &[], FOR_A_VIEWER).await.unwrap_err();
    assert!(matches!(ask("too much").await, QueryError::TooMuch(text) if text.contains("158")));
    assert!(matches!(ask("refused").await, QueryError::Refused(text) if text.contains("no table")));
    assert!(matches!(ask("proxy").await, QueryError::Unavailable(text) if text.contains("502")));
    assert!(matches!(ask("strange").await, QueryError::Refused(_)));
    assert!(matches!(ask("endless").await, QueryError::TooMuch(_)));
    let nobody = client(SocketAddr::from(([127, 0, 0, 1], 1)));
    let error = nobody.rows::<Row>("SELECT", &[], FOR_A_VIEWER).await.unwrap_err();
    assert!(matches!(&error, QueryError::Unavailable(text) if text.contains("refused")), "{error}");
}
