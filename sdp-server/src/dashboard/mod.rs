//! The web app, embedded: static files, and its page for every address of its own.
//!
//! The files are those that `make dashboard` left in `dashboard/dist` when the server was built. Built without them,
//! the server says how to get them.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

/// A file of the dashboard.
#[derive(Debug)]
struct Asset {
    /// Its path below the dashboard's.
    name: &'static str,
    /// What changes with its content.
    etag: &'static str,
    plain: &'static [u8],
    gzipped: Option<&'static [u8]>,
}

static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// The page of every address of the app.
const PAGE: &str = "index.html";

/// How the page says where it is served, before it is told.
const BASE: &str = "<base href=\"/\"";

/// Nothing from anywhere but this server, and no script or style within the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; manifest-src 'self'; base-uri 'self'; form-action 'self'; \
                      frame-ancestors 'none'";

/// Where the server's own answers are: there is no page of the app below these.
const SERVER: [&str; 6] = ["/api", "/ws", "/healthz", "/readyz", "/metrics", "/assets"];

/// What the dashboard has at a path; none where it has nothing.
///
/// `base` is the path that browsers see the server at, with a slash at both ends.
pub(crate) fn serve(path: &str, headers: &HeaderMap, base: &str) -> Option<Response> {
    let name = path.strip_prefix('/')?;
    match ASSETS.iter().find(|asset| asset.name == name && name != PAGE) {
        Some(asset) => Some(file(asset, headers)),
        None if is_page(path, headers) => Some(page(headers, base)),
        None => None,
    }
}

/// Whether a browser wants to show what is at a path, which the server has nothing at.
fn is_page(path: &str, headers: &HeaderMap) -> bool {
    let below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    !SERVER.into_iter().any(below) && (path == "/" || accepts(headers, header::ACCEPT, "text/html"))
}

fn page(headers: &HeaderMap, base: &str) -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))];
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == PAGE) else {
        let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
        return (kind, policy, include_str!("missing.html")).into_response();
    };
    if base == "/" {
        return (policy, file(asset, headers)).into_response();
    }
    let text = String::from_utf8_lossy(asset.plain).replacen(BASE, &format!("<base href=\"{base}\""), 1);
    let about = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (about, policy, text).into_response()
}

fn file(asset: &'static Asset, headers: &HeaderMap) -> Response {
    // The build names these after their content.
    let cache = if asset.name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let about = [
        (header::CACHE_CONTROL, cache),
        (header::ETAG, asset.etag),
        (header::VARY, "accept-encoding"),
        (header::CONTENT_TYPE, content_type(asset.name)),
    ];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == asset.etag)) {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    match asset.gzipped {
        Some(gzipped) if accepts(headers, header::ACCEPT_ENCODING, "gzip") => {
            (about, [(header::CONTENT_ENCODING, "gzip")], gzipped).into_response()
        }
        _ => (about, asset.plain).into_response(),
    }
}

/// Whether one of a header's values is `wanted`, and not refused with `q=0`.
fn accepts(headers: &HeaderMap, name: header::HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| {
        let mut parts = value.split(';').map(str::trim);
        let is_wanted = parts.next().is_some_and(|value| value.eq_ignore_ascii_case(wanted));
        let refused = |part: &str| part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q == 0.0));
        is_wanted && !parts.any(refused)
    })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json" | "webmanifest") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    fn sample() -> &'static Asset {
        static SAMPLE: Asset =
            Asset { name: "assets/a-1f.js", etag: "\"1f\"", plain: b"plain", gzipped: Some(b"packed") };
        &SAMPLE
    }

    #[test]
    fn every_address_that_is_not_the_servers_is_a_page() {
        let browser = headers(header::ACCEPT, "text/html,application/xhtml+xml;q=0.9");
        for path in ["/", "/sandboxes/checkout", "/deployments/1", "/apian"] {
            assert!(serve(path, &browser, "/").is_some_and(|answer| answer.status() == 200), "{path}");
        }
        for path in ["/api", "/api/nothing", "/ws/events/x", "/metrics/x", "/assets/gone.js"] {
            assert!(serve(path, &browser, "/").is_none(), "{path}");
        }
        assert!(serve("/sandboxes", &headers(header::ACCEPT, "*/*"), "/").is_none(), "a script is told it is wrong");
        assert!(serve("/", &HeaderMap::new(), "/").is_some());
    }

    #[test]
    fn the_page_runs_nothing_of_its_own_or_of_others() {
        let answer = page(&HeaderMap::new(), "/sdp/");
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn files_are_packed_for_who_takes_that_and_kept_for_ever() {
        let packed = file(sample(), &headers(header::ACCEPT_ENCODING, "br, gzip;q=0.5"));
        assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
        assert!(packed.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
        for refuses in ["br", "gzip;q=0", ""] {
            let plain = file(sample(), &headers(header::ACCEPT_ENCODING, refuses));
            assert!(!plain.headers().contains_key(header::CONTENT_ENCODING), "{refuses}");
        }
    }

    #[test]
    fn what_a_browser_has_is_not_sent_again() {
        for tag in ["\"1f\"", "\"0\", W/\"1f\""] {
            assert_eq!(file(sample(), &headers(header::IF_NONE_MATCH, tag)).status(), StatusCode::NOT_MODIFIED);
        }
        assert_eq!(file(sample(), &headers(header::IF_NONE_MATCH, "\"2f\"")).status(), StatusCode::OK);
    }
}
