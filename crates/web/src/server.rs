//! Requests, and who may make them.
//!
//! A page of the internet that a person has open can make the person's browser send requests to
//! loopback addresses, under a name of its own that resolves to one ("DNS rebinding"). Its requests
//! carry that name in `Host`, so only addresses and `localhost` are served.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use history::Archive;
use tokio::net::TcpListener;

use crate::metrics::Metrics;
use crate::page::{self, Fact};

/// Only the page's own script and style, and nothing of any other site.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Reads the facts about the daemon that the page shows. Called on a thread that must not block.
pub type Facts = Arc<dyn Fn() -> Vec<Fact> + Send + Sync>;

/// The way in which a browser asks its user for a token.
const CHALLENGE: &str = "Basic realm=\"actiond\", charset=\"UTF-8\"";

/// Decides by the headers of a request whether it is answered.
pub type MayRead = Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>;

/// The part that is shown.
#[derive(Clone)]
pub struct Site {
    /// Decides who sees it.
    pub may_read: MayRead,
    /// The version that runs.
    pub version: &'static str,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Past and present actions.
    pub archive: Archive,
    /// The state of the store.
    pub store: Facts,
}

/// Answers HTTP requests until `shutdown` is ready.
///
/// # Errors
/// When accepting connections fails for good.
pub async fn serve(
    listener: TcpListener,
    site: Site,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(site)).with_graceful_shutdown(shutdown).await
}

fn router(site: Site) -> Router {
    Router::new()
        .route("/", get(whole))
        .route("/now", get(fragment))
        .route("/metrics", get(metrics))
        .route("/page.css", get(|| async { ([(CONTENT_TYPE, "text/css")], page::STYLE) }))
        .route("/page.js", get(|| async { ([(CONTENT_TYPE, "text/javascript")], page::SCRIPT) }))
        .layer(middleware::from_fn_with_state(Arc::clone(&site.may_read), guard))
        .with_state(site)
}

async fn whole(State(site): State<Site>) -> Response {
    html(page::page(site.version, &site.archive.now.snapshot(), &(site.store)()))
}

async fn fragment(State(site): State<Site>) -> Response {
    html(page::fragment(&site.archive.now.snapshot(), &(site.store)()))
}

async fn metrics(State(site): State<Site>) -> Response {
    let (queued, running) = site.archive.now.counts();
    site.metrics.set_live(queued, running);
    match site.metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn html(text: String) -> Response {
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response()
}

/// Refuses requests that name another host, and keeps browsers strict about the answers.
async fn guard(State(may_read): State<MayRead>, request: Request, next: Next) -> Response {
    if !names_this_host(request.headers()) {
        let text = "this server answers to its address or to localhost, not to another name";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    if !may_read(request.headers()) {
        let text = "this needs a token with the right to read: as a bearer token, or in a browser as the \
                    password with any name; the operator can open the page with \
                    --http=ADDRESS?anonymous=read";
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, CHALLENGE)], text).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn names_this_host(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let Some(authority) = host.and_then(|host| host.parse::<Authority>().ok()) else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use tower::ServiceExt as _;

    use super::*;

    async fn get(path: &str, host: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::get(path).header(HOST, host).body(Body::empty()).unwrap();
        answer(request, Arc::new(|_| true)).await
    }

    async fn answer(request: Request, may_read: MayRead) -> (StatusCode, HeaderMap, String) {
        let metrics = Arc::new(Metrics::new("1", Vec::new()).unwrap());
        let store: Facts = Arc::new(|| vec![Fact { name: "blobs", value: "12".into() }]);
        let site = Site { may_read, version: "1", metrics, archive: Archive::default(), store };
        let response = router(site).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn pages_are_served() {
        for (path, kind, expected) in [
            ("/", "text/html; charset=utf-8", "<h1>actiond</h1>"),
            ("/now", "text/html; charset=utf-8", "Running"),
            ("/now", "text/html; charset=utf-8", "<dt>blobs</dt><dd>12</dd>"),
            ("/metrics", "text/plain; version=0.0.4", "actiond_actions_running 0"),
            ("/page.css", "text/css", "color-scheme"),
            ("/page.js", "text/javascript", "fetch"),
        ] {
            let (status, headers, body) = get(path, "127.0.0.1:8981").await;
            assert_eq!(status, StatusCode::OK, "{path}");
            assert_eq!(headers[CONTENT_TYPE], kind, "{path}");
            assert_eq!(headers[CONTENT_SECURITY_POLICY], POLICY, "{path}");
            assert!(body.contains(expected), "{path}: {body}");
        }
        assert_eq!(get("/nothing", "127.0.0.1").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn whoever_may_not_read_is_asked_for_a_token() {
        for path in ["/", "/now", "/metrics", "/page.js", "/nothing"] {
            let request = |token: &str| {
                let request = Request::get(path).header(HOST, "127.0.0.1");
                request.header("authorization", token).body(Body::empty()).unwrap()
            };
            let may_read: MayRead = Arc::new(|headers| headers["authorization"] == "right");
            let (status, headers, body) = answer(request("wrong"), Arc::clone(&may_read)).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(headers[WWW_AUTHENTICATE], CHALLENGE);
            assert!(!body.contains("actiond_") && !body.contains("<h1>"), "{body}");
            let (status, ..) = answer(request("right"), may_read).await;
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{path}");
        }
    }

    #[tokio::test]
    async fn another_name_for_this_host_is_refused() {
        for host in ["evil.example:8981", "localhost.evil.example", "", "127.0.0.1.evil.example"] {
            assert_eq!(get("/", host).await.0, StatusCode::MISDIRECTED_REQUEST, "{host}");
        }
        for host in ["localhost:8981", "127.0.0.1", "[::1]:8981", "192.0.2.7:80"] {
            assert_eq!(get("/", host).await.0, StatusCode::OK, "{host}");
        }
    }
}
