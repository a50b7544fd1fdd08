//! A request with its redirects.

use std::error::Error;
use std::time::Duration;

use asset::{OriginError, Wish};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode, Url};

use crate::allowed::{Allowed, Denied, Trust};
use crate::resolver::NotPublic;

/// The time for the head of an answer, and for the next bytes. A server that waits for longer is as good as none.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Steps of a redirect: what browsers take at most is 20, and curl's default is 50.
const MAX_REDIRECTS: usize = 10;

/// A client for hosts that the operator named, and one for the others.
pub(crate) struct Clients {
    pub(crate) named: Client,
    pub(crate) public: Client,
}

/// A host for people: `mirror.example:8080`.
pub(crate) fn host_of(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    }
}

/// Opens the URI of a wish: the answer of the host that has the content, with the host's name.
pub(crate) async fn open(
    clients: &Clients,
    allowed: &Allowed,
    wish: &Wish,
) -> Result<(String, Response), OriginError> {
    let mut url = Url::parse(&wish.uri).map_err(|error| OriginError::Failed {
        host: "the URI".to_owned(),
        problem: error.to_string(),
    })?;
    let mut headers = headers(wish);
    for _ in 0..=MAX_REDIRECTS {
        let trust = allowed.check(&url).map_err(forbidden)?;
        let client = match trust {
            Trust::Named => &clients.named,
            Trust::OnlyPublic => &clients.public,
        };
        let host = host_of(&url);
        let sent = client.get(url.clone()).headers(headers.clone()).send().await;
        let response = sent.map_err(|error| failed(&host, &error))?;
        if !is_redirect(response.status()) {
            return Ok((host.clone(), has_content(host, response)?));
        }
        let next = next(&url, &response).map_err(|problem| failure(&host, problem))?;
        if next.origin() != url.origin() {
            // They are for the host that the client named.
            headers.clear();
        }
        url = next;
    }
    Err(failure(&host_of(&url), format!("more than {MAX_REDIRECTS} redirects")))
}

fn failure(host: &str, problem: String) -> OriginError {
    OriginError::Failed { host: host.to_owned(), problem }
}

fn forbidden(denied: Denied) -> OriginError {
    OriginError::Forbidden(denied.to_string())
}

/// The headers that the client asks for. They were found to be well-formed before.
fn headers(wish: &Wish) -> HeaderMap {
    let pair = |(name, value): (&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    };
    wish.demands.headers(wish.index).filter_map(pair).collect()
}

fn is_redirect(status: StatusCode) -> bool {
    [301, 302, 303, 307, 308].contains(&status.as_u16())
}

/// The place to which an answer redirects. What was asked for in secret is not asked for in the clear.
fn next(url: &Url, response: &Response) -> Result<Url, String> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or("it redirects to nowhere")?;
    let next = url.join(location).map_err(|error| format!("it redirects to no URL: {error}"))?;
    if url.scheme() == "https" && next.scheme() == "http" {
        return Err("it redirects from https to http".to_owned());
    }
    Ok(next)
}

fn has_content(host: String, response: Response) -> Result<Response, OriginError> {
    let status = response.status().as_u16();
    match status {
        200 => Ok(response),
        401 | 403 | 407 | 451 => Err(OriginError::Refused { host, status }),
        404 | 410 => Err(OriginError::NotFound { host, status }),
        _ => Err(failure(&host, format!("it answered {status}"))),
    }
}

/// An error, and what caused it.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |&error| error.source())
}

/// An error of the HTTP client, without the URL.
pub(crate) fn failed(host: &str, error: &reqwest::Error) -> OriginError {
    if let Some(private) = causes(error).find_map(|cause| cause.downcast_ref::<NotPublic>()) {
        return OriginError::Forbidden(private.to_string());
    }
    if error.is_timeout() && !error.is_connect() {
        let (host, seconds) = (host.to_owned(), READ_TIMEOUT.as_secs());
        return OriginError::TooSlow { host, bytes: 0, seconds };
    }
    // The first one names the URL.
    let texts: Vec<_> = causes(error).skip(1).map(ToString::to_string).collect();
    let problem = match texts.is_empty() {
        true => "no answer of use".to_owned(),
        false => texts.join(": "),
    };
    failure(host, problem)
}
