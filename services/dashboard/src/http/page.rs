//! The page: files that are part of the binary.

use axum::extract::Path;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

use super::ApiError;

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Name, content type, content.
type Asset = (&'static str, &'static str, &'static [u8]);

macro_rules! assets {
    ($($kind:ident $name:literal $path:literal),* $(,)?) => {
        &[$(($name, $kind, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path)))),*]
    };
}

const FONT: &str = "font/woff2";
const IMAGE: &str = "image/svg+xml";

const ASSETS: &[Asset] = assets![
    JAVASCRIPT "main.js" "page/main.js",
    JAVASCRIPT "live.js" "page/live.js",
    JAVASCRIPT "address.js" "page/address.js",
    JAVASCRIPT "dom.js" "page/dom.js",
    JAVASCRIPT "format.js" "page/format.js",
    JAVASCRIPT "charts.js" "page/charts.js",
    JAVASCRIPT "fleet.js" "page/fleet.js",
    JAVASCRIPT "sensor.js" "page/sensor.js",
    JAVASCRIPT "sensor-search.js" "page/sensor-search.js",
    JAVASCRIPT "anomalies.js" "page/anomalies.js",
    JAVASCRIPT "pipeline.js" "page/pipeline.js",
    STYLE "base.css" "page/base.css",
    STYLE "parts.css" "page/parts.css",
    STYLE "views.css" "page/views.css",
    IMAGE "icon.svg" "page/icon.svg",
    JAVASCRIPT "uPlot.iife.min.js" "../../assets/uplot/uPlot.iife.min.js",
    STYLE "uPlot.min.css" "../../assets/uplot/uPlot.min.css",
    FONT "inter.woff2" "../../assets/inter/inter-latin-wght-normal.woff2",
];

pub(super) async fn index() -> Response {
    ([(header::CACHE_CONTROL, "no-cache")], Html(include_str!("../../page/index.html"))).into_response()
}

pub(super) async fn asset(Path(name): Path<String>) -> Result<Response, ApiError> {
    let found = ASSETS.iter().find(|(known, ..)| *known == name);
    let Some((_, kind, content)) = found else {
        return Err(ApiError::NotFound("the page has no such file".to_owned()));
    };
    // A new binary has new files under the same names; only the font stays what it is.
    let cached = if *kind == FONT { "max-age=86400" } else { "no-cache" };
    Ok(([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, cached)], *content).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &'static [u8]) -> &'static str {
        std::str::from_utf8(content).unwrap()
    }

    #[test]
    fn every_file_that_is_named_is_there_and_every_file_there_is_named() {
        let index = include_str!("../../page/index.html");
        let sources: Vec<_> = ASSETS
            .iter()
            .filter(|(_, kind, _)| [JAVASCRIPT, STYLE].contains(kind))
            .map(|asset| text(asset.2))
            .collect();
        for (name, ..) in ASSETS {
            let quoted = [format!("/assets/{name}"), format!("./{name}")];
            let is_named = |source: &str| quoted.iter().any(|quoted| source.contains(quoted.as_str()));
            assert!(is_named(index) || sources.iter().any(|source| is_named(source)), "{name} is not used");
        }
        let named = index.split("/assets/").skip(1).filter_map(|rest| rest.split('"').next());
        let imported = sources.iter().flat_map(|source| source.split("from \"./").skip(1));
        for name in named.chain(imported.filter_map(|rest| rest.split('"').next())) {
            assert!(ASSETS.iter().any(|(known, ..)| *known == name), "{name} is missing");
        }
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere_and_nothing_is_inline() {
        let index = include_str!("../../page/index.html");
        for (name, _, content) in ASSETS.iter().filter(|(_, kind, _)| [JAVASCRIPT, STYLE].contains(kind)) {
            let source = text(content).replace("http://www.w3.org/2000/svg", "");
            // The licence of the chart library names its home in a comment.
            let is_ours = !name.starts_with("uPlot");
            assert!(!is_ours || !source.contains("http"), "{name} names an address");
            for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!is_ours || !source.contains(way), "{name} uses {way}: texts are hostile data");
            }
        }
        for inline in ["<style", "style=", "onclick", "onload", "http"] {
            assert!(!index.contains(inline), "{inline}");
        }
        assert!(!index.split("<script").skip(1).any(|script| !script.trim_start().starts_with(['s', 't', 'd'])));
    }
}
