//! Why a call failed, for an operator: a status of tonic names only a part of it.

use std::error::Error;

use tonic::{ConnectError, Status};

/// The words of tonic that tell nothing.
const EMPTY: &str = "transport error";

/// The hint where it is one reason among others.
const CLOSED: &str = "a server that speaks TLS closes the connection: use grpcs:// there";

/// Words of an error where one side speaks TLS and the other does not, each with the cure.
const HINTS: [(&str, &str); 5] = [
    // The answer of a server without TLS, as rustls sees it.
    ("received corrupt message", "the server does not speak TLS: use grpc://"),
    // The alert of a server with TLS, as h2 sees it.
    ("frame with invalid size", "the server seems to speak TLS: use grpcs://"),
    // Its end, where that comes before the alert was read. A server that stops says the same.
    ("connection closed", CLOSED),
    ("closed because of a broken pipe", CLOSED),
    ("Connection reset by peer", CLOSED),
];

/// The code of a call that failed, its message, and all that led to it. With a hint where TLS may be the reason.
pub fn reason(status: &Status) -> String {
    let mut words = vec![status.code().to_string()];
    let mut add = |word: String| {
        if word != EMPTY && !word.is_empty() && !words.iter().any(|known| known.contains(&word)) {
            words.push(word);
        }
    };
    add(status.message().to_owned());
    causes(status).for_each(|cause| add(cause.to_string()));
    let text = words.join(": ");
    match HINTS.into_iter().find(|(words, _)| text.contains(words)) {
        Some((_, hint)) => format!("{text} ({hint})"),
        None => text,
    }
}

/// Whether the call failed before anything of it was sent, for there was no connection.
pub fn was_not_sent(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<ConnectError>())
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn failed(cause: impl Error + Send + Sync + 'static) -> Status {
        Status::from_error(Box::new(cause))
    }

    #[test]
    fn an_answer_of_the_server_is_as_it_is() {
        let status = Status::new(Code::PermissionDenied, "no token");
        assert_eq!(
            reason(&status),
            "The caller does not have permission to execute the specified operation: no token"
        );
        assert!(!was_not_sent(&status));
    }

    #[test]
    fn a_connection_that_is_refused_is_told_with_its_cause() {
        let io = std::io::Error::from_raw_os_error(111);
        let status = failed(ConnectError(Box::new(io)));
        assert!(was_not_sent(&status));
        assert_eq!(
            reason(&status),
            "The service is currently unavailable: Connection refused (os error 111)"
        );
    }

    #[test]
    fn a_server_without_tls_is_named() {
        let io = std::io::Error::other("received corrupt message of type InvalidContentType");
        let text = reason(&failed(ConnectError(Box::new(io))));
        assert!(text.ends_with("use grpc://)"), "{text}");
    }

    #[test]
    fn a_server_with_tls_is_named() {
        for words in [
            "connection error detected: frame with invalid size",
            "connection closed",
            "stream closed because of a broken pipe",
            "Connection reset by peer (os error 104)",
        ] {
            let text = reason(&failed(std::io::Error::other(words)));
            assert!(text.contains("use grpcs://"), "{text}");
        }
    }
}
