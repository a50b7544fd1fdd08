//! Errors of object stores as errors of calls.

use std::fmt::Write as _;

use tonic::Status;

use crate::call_error::CallError;

/// The characters of an error of an object store that are shown.
const TEXT_CHARS_MAX: usize = 500;

/// The error of an object store as one of a call.
pub(crate) fn call_error(error: &object_store::Error) -> CallError {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => CallError::Missing,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            CallError::Refused(Box::new(Status::permission_denied(text(error))))
        }
        Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::UnknownConfigurationKey { .. } => {
            CallError::Refused(Box::new(Status::invalid_argument(text(error))))
        }
        error => failed(&text(error)),
    }
}

/// The error of a write. One that finds nothing has no bucket.
pub(crate) fn written(error: &object_store::Error) -> CallError {
    match call_error(error) {
        CallError::Missing => failed("there is no such bucket"),
        error => error,
    }
}

/// The error of an upstream that did not do what it should.
pub(crate) fn failed(text: &str) -> CallError {
    CallError::Failed(Box::new(Status::unavailable(text)))
}

/// An error of an object store with its causes, without what may be secret: the query of an address, where Azure's
/// signatures are.
pub(crate) fn text(error: &object_store::Error) -> String {
    let mut whole = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        // Most of them print their causes.
        let next = error.to_string();
        if !whole.contains(&next) {
            // Writing to a string cannot fail.
            let _ = write!(whole, ": {next}");
        }
        cause = error.source();
    }
    without_queries(&whole).chars().take(TEXT_CHARS_MAX).collect()
}

/// The text without what follows a question mark, up to the next space, bracket or quote.
fn without_queries(text: &str) -> String {
    let mut is_query = false;
    let is_shown = |character: &char| {
        let is_end = character.is_whitespace() || "()<>[]\"'".contains(*character);
        let was_query = is_query && !is_end;
        is_query = was_query || *character == '?';
        !was_query
    };
    text.chars().filter(is_shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_not_shown() {
        for (text, expected) in [
            ("no query", "no query"),
            ("GET https://a/b?sig=secret&x=1 failed", "GET https://a/b? failed"),
            ("url (https://a/b?sig=secret): why?", "url (https://a/b?): why?"),
            ("\"https://a?s\" 'b?c?d' e", "\"https://a?\" 'b?' e"),
        ] {
            assert_eq!(without_queries(text), expected);
        }
    }
}
