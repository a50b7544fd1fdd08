//! The reason why a collector did not take a message, in the words of both forms of the protocol.

use std::time::Duration;

use tonic::codegen::http::StatusCode;
use tonic::{Code, Status};

/// The longest pause that a collector can ask for. Meanwhile the queue takes what comes.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The reason why a collector did not take a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The status of the answer, or what happened to the connection.
    pub(crate) code: String,
    /// The collector's words, which may be anything.
    pub(crate) reason: String,
    /// Whether the same message may be taken later, as the protocol defines it.
    pub(crate) may_pass: bool,
    /// The pause that the collector asks for.
    pub(crate) pause: Option<Duration>,
}

impl Refusal {
    /// No answer, for a reason that may pass.
    pub(crate) fn no_answer(reason: String) -> Self {
        Self { code: "no answer".to_owned(), reason, may_pass: true, pause: None }
    }

    /// An answer of HTTP that is no success.
    pub(crate) fn of_http(status: StatusCode, retry_after: Option<&str>, reason: String) -> Self {
        let may_pass = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        // A date, which the header may also have, is as good as none.
        let pause = retry_after.and_then(|seconds| seconds.trim().parse().ok());
        let pause = pause.map(|seconds| Duration::from_secs(seconds).min(PAUSE_MAX));
        Self { code: status.as_u16().to_string(), reason, may_pass, pause }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let may_pass = matches!(
            status.code(),
            Code::Cancelled
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss
                // tonic's code for a connection that broke.
                | Code::Unknown
        );
        let (code, reason) = (format!("{:?}", status.code()), status.message().to_owned());
        Self { code, reason, may_pass, pause: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_over_http() {
        let check = |status: u16, retry_after, expected: (bool, Option<u64>)| {
            let status = StatusCode::from_u16(status).unwrap();
            let refusal = Refusal::of_http(status, retry_after, String::new());
            let found = (refusal.may_pass, refusal.pause.map(|pause| pause.as_secs()));
            assert_eq!(found, expected, "{status} {retry_after:?}");
        };
        for status in [429, 502, 503, 504] {
            check(status, None, (true, None));
        }
        for status in [301, 400, 401, 403, 404, 413, 500, 501] {
            check(status, None, (false, None));
        }
        check(503, Some("7"), (true, Some(7)));
        check(503, Some("86400"), (true, Some(30)));
        check(503, Some("Fri, 31 Dec 1999 23:59:59 GMT"), (true, None));
        check(503, Some("-1"), (true, None));
    }
}
