//! Errors of platform properties, and the form in which they show a client's text.

/// An error of a platform property.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// The property cannot have this value.
    #[error("platform property {name}: {value:?} is not {expected}")]
    Value {
        /// The name of the property.
        name: String,
        /// The value as it was sent; its first 128 characters when it is longer.
        value: String,
        /// The expected value.
        expected: &'static str,
    },
    /// The property, or another name of it, was set to something else before.
    #[error("platform property {name}: {value:?} contradicts an earlier value")]
    Contradiction {
        /// The name of the later property.
        name: String,
        /// Its value; its first 128 characters when it is longer.
        value: String,
    },
    /// A name that looks like one of a limit and is not one.
    #[error("platform property {name}: there is no such limit; did you mean {suggestion}?")]
    UnknownLimit {
        /// The name as it was sent; its first 128 characters when it is longer.
        name: String,
        /// The name of the limit that is most like it.
        suggestion: &'static str,
    },
    /// The property asks for a machine that this worker is not.
    #[error(
        "platform property {name}: this worker is not {value:?} (it offers {offered}; its operator \
         can declare more with --platform)"
    )]
    OtherMachine {
        /// The name of the property.
        name: String,
        /// The value as it was sent; its first 128 characters when it is longer.
        value: String,
        /// The values that this worker offers.
        offered: String,
    },
    /// The property has no meaning to this server, whose operator wants such ones refused.
    #[error("platform property {name} is unknown, and this server refuses unknown properties")]
    Unknown {
        /// The name of the property; its first 128 characters when it is longer.
        name: String,
    },
}

/// Cuts a client's text to the 128 characters that errors and the log show.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}
