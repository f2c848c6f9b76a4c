//! Spans to an OpenTelemetry collector, in builds with the feature `otlp`.
//!
//! Three kinds of traces, each with its topic, partition and offset: `seal` from the cut of a segment to its commit, with
//! its five steps; `restore` of a partition; `insert` into the hot store. None is ever opened for a record or a batch.
//!
//! OpenTelemetry's own variables say where to: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`,
//! `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER` and so on; OTLP over HTTP with protobuf. Without an endpoint nothing is
//! exported, and nothing is started.
//!
//! Not part of `make test`, for the time that it takes to compile:
//! `cargo test --release --locked -p kappa-pipeline --features otlp --lib traces`.

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

/// The variables that ask for an export.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// What the process's subscriber gives its spans to.
pub type SpanLayer<S> = Box<dyn Layer<S> + Send + Sync>;

/// The export under way, if any. Dropped, it sends what is left.
#[derive(Debug, Default)]
pub struct Traces {
    #[cfg(feature = "otlp")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
    asked_for: bool,
}

impl Traces {
    /// No export.
    pub fn none() -> Self {
        Self::default()
    }

    /// Says so if somebody asks for an export that was not built in.
    pub fn warn_if_missing(&self) {
        if self.asked_for && !cfg!(feature = "otlp") {
            let variables = ENDPOINTS.join(" or ");
            tracing::warn!(
                "{variables} is set, but this program was built without the feature `otlp`: no traces are exported"
            );
        }
    }
}

/// The export that the environment asks for.
pub fn from_environment<S>() -> anyhow::Result<(Traces, Option<SpanLayer<S>>)>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !ENDPOINTS.iter().any(is_set) {
        return Ok((Traces::none(), None));
    }
    #[cfg(feature = "otlp")]
    return export(None);
    #[cfg(not(feature = "otlp"))]
    return Ok((Traces { asked_for: true }, None));
}

/// To the endpoint, or to the one that the environment names.
#[cfg(feature = "otlp")]
fn export<S>(endpoint: Option<&str>) -> anyhow::Result<(Traces, Option<SpanLayer<S>>)>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    use anyhow::Context as _;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::filter::Targets;

    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
    let exporter = endpoint.into_iter().fold(exporter, WithExportConfig::with_endpoint);
    let exporter = exporter.build().context("cannot export traces by OTLP")?;
    // OTEL_SERVICE_NAME goes before ours.
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some();
    let resource = Resource::builder();
    let resource = if named { resource } else { resource.with_service_name("kappa") }.build();
    // Batches are sent by a thread of their own: nothing of the pipeline waits for the collector.
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("kappa"));
    let ours = Targets::new().with_target("kappa_pipeline", tracing::Level::INFO);
    let traces = Traces { provider: Some(provider), asked_for: true };
    Ok((traces, Some(layer.with_filter(ours).boxed())))
}

#[cfg(feature = "otlp")]
impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take()
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!("the last traces could not be exported: {error}");
        }
    }
}

#[cfg(feature = "otlp")]
#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// One request of OTLP over HTTP: the path and the body.
    fn answer_one(collector: &TcpListener) -> (String, Vec<u8>) {
        let (mut stream, _) = collector.accept().unwrap();
        let mut request = Vec::new();
        let mut chunk = [0; 4096];
        let (head, length) = loop {
            let read = stream.read(&mut chunk).unwrap();
            assert!(read > 0, "the exporter has hung up");
            request.extend_from_slice(&chunk[..read]);
            let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = String::from_utf8(request[..end].to_vec()).unwrap();
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            request.drain(..end + 4);
            break (head, length.unwrap_or(0));
        };
        while request.len() < length {
            let read = stream.read(&mut chunk).unwrap();
            assert!(read > 0, "the exporter has hung up");
            request.extend_from_slice(&chunk[..read]);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        (head.lines().next().unwrap().to_owned(), request)
    }

    fn attribute(span: &Span, name: &str) -> Option<Value> {
        span.attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?.value
    }

    #[test]
    fn a_collector_gets_the_seal_and_its_steps() {
        let collector = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/traces", collector.local_addr().unwrap());
        let received = std::thread::spawn(move || answer_one(&collector));
        let (traces, layer) = export(Some(&endpoint)).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let seal = crate::partition::seal_span("readings", 3, 70..95);
            tracing::info_span!(parent: &seal, "archive").in_scope(|| ());
            tracing::info_span!(target: "reqwest", parent: &seal, "a library's").in_scope(|| ());
        });
        drop(traces);

        let (request, body) = received.join().unwrap();
        assert!(request.starts_with("POST /v1/traces "), "{request}");
        let exported = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        let spans: Vec<&Span> =
            exported.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).collect();
        let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["archive", "seal"]);
        let (archive, seal) = (spans[0], spans[1]);
        assert_eq!((&archive.parent_span_id, seal.parent_span_id.len()), (&seal.span_id, 0));
        assert_eq!(attribute(seal, "topic"), Some(Value::StringValue("readings".to_owned())));
        assert_eq!(attribute(seal, "partition"), Some(Value::IntValue(3)));
        assert_eq!(attribute(seal, "offset"), Some(Value::IntValue(70)));
        let resource = exported.resource_spans[0].resource.as_ref().unwrap();
        let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
        assert_eq!(service.value.clone().unwrap().value, Some(Value::StringValue("kappa".to_owned())));
    }
}
