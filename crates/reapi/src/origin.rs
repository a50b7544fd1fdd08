//! The names that a client gives its requests: the `RequestMetadata` header (REAPI,
//! "build.bazel.remote.execution.v2.requestmetadata-bin").

use access::Permit;
use bytes::Bytes;
use events::{Caller, TraceContext};
use model::Printable;
use tonic::Extensions;
use tonic::metadata::MetadataMap;

/// The header with an encoded `RequestMetadata`.
const HEADER: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// The sender of a request with those extensions and that encoded `RequestMetadata`.
pub(crate) fn caller(extensions: &Extensions, metadata: &Bytes) -> Caller {
    let permit = extensions.get::<Permit>();
    let principal = permit.map(|permit| Printable::name(permit.principal()));
    Caller::new(principal.unwrap_or_default(), metadata.clone())
}

/// The encoded `RequestMetadata` in a request's headers; empty if there is none.
pub(crate) fn encoded(headers: &MetadataMap) -> Bytes {
    let bytes = headers.get_bin(HEADER).and_then(|value| value.to_bytes().ok());
    bytes.unwrap_or_default()
}

/// The header of an action that another actiond sends on, as `upstream::execution` sends it.
const FORWARDED_HEADER: &str = "actiond-overflow";

/// Whether the request is for an action that another actiond has sent on.
pub(crate) fn is_forwarded(headers: &MetadataMap) -> bool {
    headers.contains_key(FORWARDED_HEADER)
}

/// The header of a trace context (W3C).
const TRACE_HEADER: &str = "traceparent";

/// The place of a request in a trace of its client; `None` if it names none.
pub(crate) fn trace(headers: &MetadataMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get(TRACE_HEADER)?.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use model::proto::RequestMetadata;
    use prost::Message as _;
    use tonic::metadata::MetadataValue;

    use super::*;

    #[test]
    fn the_header_is_read() {
        let metadata = RequestMetadata { target_id: "//a:b".into(), ..Default::default() };
        let mut headers = MetadataMap::new();
        headers.insert_bin(HEADER, MetadataValue::from_bytes(&metadata.encode_to_vec()));
        let caller = caller(&Extensions::new(), &encoded(&headers));
        assert_eq!(caller.origin().target.as_str(), "//a:b");
        assert!(caller.origin().principal.is_empty());
    }

    #[test]
    fn a_header_that_is_missing_or_no_base64_is_as_good_as_none() {
        let mut http = tonic::codegen::http::HeaderMap::new();
        assert!(encoded(&MetadataMap::from_headers(http.clone())).is_empty());
        http.insert(HEADER, "!".parse().unwrap());
        assert!(encoded(&MetadataMap::from_headers(http)).is_empty());
    }

    #[test]
    fn the_trace_context_is_read() {
        let mut headers = MetadataMap::new();
        assert_eq!(trace(&headers), None);
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert(TRACE_HEADER, text.parse().unwrap());
        assert_eq!(trace(&headers).map(|it| it.to_string()).as_deref(), Some(text));
        headers.insert(TRACE_HEADER, "nonsense".parse().unwrap());
        assert_eq!(trace(&headers), None);
    }
}
