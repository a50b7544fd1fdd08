//! Requests, and who may make them.
//!
//! A page of the internet that a person has open can make the person's browser send requests to
//! loopback addresses, under a name of its own that resolves to one ("DNS rebinding"). Its requests
//! carry that name in `Host`, so only addresses and `localhost` are served.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST,
    REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use chain::Chain;
use model::{Digest, DigestFunction};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::download::FileBody;
use crate::html::{self, Escaped, Query, parameter};
use crate::live::{Live, Of};
use crate::open_metrics;
use crate::page;
use crate::pages::{self, PageError, search::Answer};
use crate::site::{MayRead, Site};

/// Only the page's own script and style, forms that lead to its own pages, and nothing of any other site.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Pages about past actions that are made at a time. Each holds a thread, a few MiB, and the one connection to
/// the history.
const PAGES_MAX: usize = 4;

/// Downloads at a time. Each holds a thread for as long as its reader takes.
const DOWNLOADS_MAX: usize = 8;

/// The time of the sums on the page about the cache, in microseconds.
const DAY_US: u64 = 86_400_000_000;

/// The way in which a browser asks its user for a token.
const CHALLENGE: &str = "Basic realm=\"actiond\", charset=\"UTF-8\"";

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

/// The site, and what its pages share.
#[derive(Clone)]
struct Pages {
    site: Site,
    turns: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    live: Arc<Live>,
}

fn router(site: Site) -> Router {
    let pages = Pages {
        site: site.clone(),
        turns: Arc::new(Semaphore::new(PAGES_MAX)),
        downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
        live: Live::new(),
    };
    let may_read_all = Arc::clone(&site.may_read_all);
    let past = Router::new()
        .route("/invocations", get(invocations))
        .route("/invocation", get(invocation))
        .route("/action/{function}/{hash}/{size}", get(action))
        .route("/directory/{function}/{hash}/{size}", get(directory))
        .route("/blob/{function}/{hash}/{size}", get(blob))
        .route("/compare", get(compare))
        .route("/search", get(search))
        .route("/cache", get(cache))
        .route("/doctor", get(doctor))
        .layer(middleware::from_fn_with_state(may_read_all, guard_all))
        .with_state(pages.clone());
    Router::new()
        .route("/events", get(events))
        .with_state(pages)
        .merge(past)
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

/// The changes of a page.
async fn events(
    State(pages): State<Pages>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let of = match parameter(&query.unwrap_or_default(), "of").as_deref() {
        Some("now") => Of::Now,
        Some("ended") => Of::Ended,
        _ => return (StatusCode::NOT_FOUND, "`of` is now or ended").into_response(),
    };
    pages.live.events(pages.site, headers, of)
}

/// Makes a page on a thread that may block, a few at a time.
async fn made(
    pages: Pages,
    make: impl FnOnce(&Site) -> Result<String, PageError> + Send + 'static,
) -> Response {
    match on_a_thread(pages, make).await {
        Ok(text) => html(text),
        Err(refused) => refused,
    }
}

async fn on_a_thread<T: Send + 'static>(
    Pages { site, turns, .. }: Pages,
    make: impl FnOnce(&Site) -> Result<T, PageError> + Send + 'static,
) -> Result<T, Response> {
    // An error means that the semaphore was closed, which nothing does.
    let turn = turns.acquire_owned().await.ok();
    let made = tokio::task::spawn_blocking(move || {
        let made = make(&site);
        drop(turn);
        made
    });
    match made.await {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error)) => Err(refused(&error)),
        Err(error) => {
            tracing::error!(%error, "a page panicked");
            Err(StatusCode::INTERNAL_SERVER_ERROR.into_response())
        }
    }
}

fn refused(error: &PageError) -> Response {
    let status = match error {
        PageError::NotFound(_) => StatusCode::NOT_FOUND,
        PageError::History(_) => StatusCode::SERVICE_UNAVAILABLE,
        PageError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let text = Chain(error).to_string();
    let body = format!("<p>{}</p>\n", Escaped(&text));
    (status, html(html::layout("Nothing to show", &body))).into_response()
}

/// A digest in the path of an address.
type DigestPath = Path<(String, String, u64)>;

fn digest_of(Path((function, hash, size)): DigestPath) -> Result<Digest, PageError> {
    let digest = DigestFunction::from_name(&function)
        .and_then(|function| Digest::parse_hex(function, &hash, size).ok());
    digest.ok_or_else(|| PageError::NotFound("that is no digest".to_owned()))
}

/// A digest in a parameter, as `function:hash/size`.
fn digest_parameter(query: &str, name: &str) -> Option<Digest> {
    let text = parameter(query, name)?;
    let (function, digest) = text.split_once(':')?;
    let (hash, size) = digest.split_once('/')?;
    Digest::parse_hex(DigestFunction::from_name(function)?, hash, size.parse().ok()?).ok()
}

async fn invocations(State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    let before = parameter(&query.unwrap_or_default(), "before").and_then(|it| it.parse().ok());
    made(pages, move |site| pages::invocation::list(&site.archive, before)).await
}

async fn invocation(State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    let name = parameter(&query.unwrap_or_default(), "name").unwrap_or_default();
    made(pages, move |site| pages::invocation::page(&site.archive, &name)).await
}

async fn action(
    State(pages): State<Pages>,
    path: DigestPath,
    RawQuery(query): RawQuery,
) -> Response {
    let run = parameter(&query.unwrap_or_default(), "run").and_then(|it| it.parse().ok());
    match digest_of(path) {
        Ok(digest) => {
            let make =
                move |site: &Site| pages::action::page(&site.archive, &site.blobs, &digest, run);
            made(pages, make).await
        }
        Err(error) => refused(&error),
    }
}

async fn directory(State(pages): State<Pages>, path: DigestPath) -> Response {
    match digest_of(path) {
        Ok(digest) => made(pages, move |site| pages::directory::page(&site.blobs, &digest)).await,
        Err(error) => refused(&error),
    }
}

async fn compare(State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let digests = (digest_parameter(&query, "old"), digest_parameter(&query, "new"));
    let (Some(old), Some(new)) = digests else {
        return refused(&PageError::NotFound("that is no digest".to_owned()));
    };
    made(pages, move |site| pages::compare::page(&site.blobs, &old, &new)).await
}

async fn search(State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    let text = parameter(&query.unwrap_or_default(), "q").unwrap_or_default();
    let answer =
        on_a_thread(pages, move |site| pages::search::answer(&site.archive, &site.blobs, &text))
            .await;
    match answer {
        Ok(Answer::Page(text)) => html(text),
        Ok(Answer::Elsewhere(path)) => Redirect::to(&path).into_response(),
        Err(refused) => refused,
    }
}

async fn cache(State(pages): State<Pages>) -> Response {
    made(pages, |site| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let since = u64::try_from(now.as_micros()).unwrap_or(u64::MAX).saturating_sub(DAY_US);
        pages::cache::page(&site.archive, &(site.store)(), &(site.usage)(), since)
    })
    .await
}

async fn doctor(State(pages): State<Pages>) -> Response {
    made(pages, |site| Ok(pages::doctor::page(&(site.doctor)()))).await
}

/// A blob as a download. It is never shown: its content is the client's, and could be a page.
async fn blob(State(pages): State<Pages>, path: DigestPath, RawQuery(query): RawQuery) -> Response {
    let digest = match digest_of(path) {
        Ok(digest) => digest,
        Err(error) => return refused(&error),
    };
    let Ok(permit) = Arc::clone(&pages.downloads).try_acquire_owned() else {
        let text = "too many downloads at a time; try again";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let opened = on_a_thread(pages, move |site| {
        let file = site.blobs.cas().open(&digest)?;
        file.ok_or_else(|| PageError::NotFound("the store has no such blob".to_owned()))
    });
    let file = match opened.await {
        Ok(file) => file,
        Err(refused) => return refused,
    };
    let name = parameter(&query.unwrap_or_default(), "name").unwrap_or_default();
    let name = if name.is_empty() { digest.hex() } else { name };
    // RFC 6266: everything but plain characters is encoded.
    let disposition = format!("attachment; filename*=UTF-8''{}", Query(&name));
    let headers =
        [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_DISPOSITION, disposition)];
    (headers, FileBody::of(file, digest.size_bytes(), permit)).into_response()
}

async fn metrics(State(site): State<Site>, headers: HeaderMap) -> Response {
    let (queued, running) = site.archive.now.counts();
    site.metrics.set_live(queued, running);
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if open_metrics::is_preferred(accept) {
        return ([(CONTENT_TYPE, open_metrics::CONTENT_TYPE)], site.metrics.encode_open())
            .into_response();
    }
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
    // Addresses have names of targets in them.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Refuses a principal that may read in some instances only: these pages are of all.
async fn guard_all(State(may_read_all): State<MayRead>, request: Request, next: Next) -> Response {
    if !may_read_all(request.headers()) {
        let text = "this page shows actions of all instances, and needs a token with the right to read in \
                    every one; `linux-actiond logs` shows those of some";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    next.run(request).await
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
    use crate::site::tests::site;

    async fn get(path: &str, host: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::get(path).header(HOST, host).body(Body::empty()).unwrap();
        answer(request, Arc::new(|_| true)).await
    }

    async fn answer(request: Request, may_read: MayRead) -> (StatusCode, HeaderMap, String) {
        answer_of(site(may_read), request).await
    }

    async fn answer_of(site: Site, request: Request) -> (StatusCode, HeaderMap, String) {
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
            ("/cache", "text/html; charset=utf-8", "<dt>blobs</dt><dd>12</dd>"),
            ("/doctor", "text/html; charset=utf-8", "&lt;all&gt; is well"),
            ("/page.css", "text/css", "color-scheme"),
            ("/page.js", "text/javascript", "EventSource"),
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
        for path in [
            "/",
            "/now",
            "/events?of=nothing",
            "/metrics",
            "/page.js",
            "/nothing",
            "/invocations",
            "/invocation?name=a",
            "/search?q=a",
            "/cache",
            "/doctor",
            "/compare",
            "/action/sha256/00/1",
            "/blob/sha256/00/1",
            "/directory/sha256/00/1",
        ] {
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
    async fn scrapers_choose_the_format() {
        let request = Request::get("/metrics").header(HOST, "127.0.0.1");
        let request = request.header(ACCEPT, "application/openmetrics-text; version=1.0.0");
        let (status, headers, body) =
            answer(request.body(Body::empty()).unwrap(), Arc::new(|_| true)).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[CONTENT_TYPE], open_metrics::CONTENT_TYPE);
        assert!(body.contains("# TYPE actiond_action_output_bytes counter\n"), "{body}");
        assert!(body.ends_with("# EOF\n"), "{body}");
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
