//! Messages to a collector as protobuf over HTTP/1.1, the other form of the protocol.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message as _;
use proto::google::rpc::Status as RpcStatus;
use proto::opentelemetry::proto::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use tonic::metadata::MetadataMap;
use upstream::{Headers, Security};

use crate::error::{CALL_TIMEOUT, TracesError};
use crate::refusal::Refusal;

/// The longest answer that is read: a status with a message.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The type of the bodies.
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

#[cfg(feature = "tls")]
type Connector = hyper_rustls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "tls"))]
type Connector = HttpConnector;

/// The calls of a collector.
pub(crate) struct HttpCalls {
    client: Client<Connector, Full<Bytes>>,
    url: Uri,
    headers: HeaderMap,
}

impl HttpCalls {
    /// To be called inside of a runtime. Connects when there is something to send.
    pub(crate) fn new(
        url: Uri,
        headers: &Headers,
        security: &Security,
        version: &str,
    ) -> Result<Self, TracesError> {
        let client = Client::builder(TokioExecutor::new()).build(connector(&url, security)?);
        let mut metadata = MetadataMap::new();
        headers.add_to(&mut metadata);
        let mut headers = metadata.into_headers();
        headers.insert(header::CONTENT_TYPE, PROTOBUF);
        if let Ok(agent) = format!("actiond/{version}").parse() {
            headers.insert(header::USER_AGENT, agent);
        }
        Ok(Self { client, url, headers })
    }

    /// Sends a message and returns the answer.
    pub(crate) async fn export(
        &self,
        message: &ExportTraceServiceRequest,
    ) -> Result<ExportTraceServiceResponse, Refusal> {
        let body = Full::new(Bytes::from(message.encode_to_vec()));
        let mut request = Request::post(self.url.clone())
            .body(body)
            .map_err(|error| Refusal::no_answer(error.to_string()))?;
        *request.headers_mut() = self.headers.clone();
        let answer = self.client.request(request).await;
        let answer =
            answer.map_err(|error| Refusal::no_answer(model::Chain(&error).to_string()))?;
        let (parts, body) = answer.into_parts();
        let retry_after = parts.headers.get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok());
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        if !parts.status.is_success() {
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let reason = reason(&Response::from_parts(parts.clone(), body));
            return Err(Refusal::of_http(parts.status, retry_after, reason));
        }
        // The spans are taken, whatever the body is: some collectors answer with none.
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Ok(ExportTraceServiceResponse::decode(body).unwrap_or_default())
    }
}

/// The words of an answer that is no success.
fn reason(answer: &Response<Bytes>) -> String {
    let is_protobuf = answer.headers().get(header::CONTENT_TYPE) == Some(&PROTOBUF);
    let status = RpcStatus::decode(answer.body().clone()).ok().filter(|_| is_protobuf);
    match status {
        Some(status) => status.message,
        None => String::from_utf8_lossy(answer.body()).into_owned(),
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CALL_TIMEOUT));
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    tcp
}

#[cfg(not(feature = "tls"))]
fn connector(url: &Uri, _: &Security) -> Result<Connector, TracesError> {
    if url.scheme_str() == Some("https") { Err(TracesError::NoTls) } else { Ok(tcp()) }
}

#[cfg(feature = "tls")]
fn connector(url: &Uri, security: &Security) -> Result<Connector, TracesError> {
    use std::sync::Arc;

    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    // The certificates of the system are read only where they are needed.
    let roots = match url.scheme_str() {
        Some("https") => crate::roots::read(security.ca.as_deref())?,
        _ => RootCertStore::empty(),
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(TracesError::Tls)?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config);
    Ok(builder.https_or_http().enable_http1().wrap_connector(tcp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_an_answer() {
        let check = |kind: &'static str, body: Vec<u8>, expected: &str| {
            let answer = Response::builder().header(header::CONTENT_TYPE, kind).body(body.into());
            assert_eq!(reason(&answer.unwrap()), expected);
        };
        let status = RpcStatus { message: "no such tenant".into(), ..RpcStatus::default() };
        check("application/x-protobuf", status.encode_to_vec(), "no such tenant");
        check("text/plain", b"go away".to_vec(), "go away");
        check("application/x-protobuf", b"\xff\xff".to_vec(), "\u{fffd}\u{fffd}");
    }
}
