//! Everything an operator decides about an upstream.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use model::proto::ActionResult;

use crate::headers::Headers;
use crate::place::Place;

/// An upstream, and how it is used.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where blobs are.
    pub cas: Place,
    /// Where cached results are; `None` to fetch and copy none.
    pub action_cache: Option<ResultsConfig>,
    /// The headers of every call.
    pub headers: Headers,
    /// TLS of `grpcs` addresses.
    pub security: Security,
    /// The time for an answer that has no content to speak of, and for the next piece of one that has. A call
    /// that takes longer counts as a failure.
    pub timeout: Duration,
    /// Whether and when new results are copied upstream.
    pub writes: Writes,
    /// The consequence of a server that is down, in the words of the log.
    pub while_down: &'static str,
}

/// Cached results upstream.
#[derive(Debug, Clone)]
pub struct ResultsConfig {
    /// Where they are.
    pub place: Place,
    /// How they become entries of the action cache and back.
    pub entries: Entries,
}

/// How results become entries of the store's action cache and back, which those know who read the entries.
#[derive(Debug, Clone, Copy)]
pub struct Entries {
    /// The entry of a result from upstream.
    pub of_result: fn(ActionResult) -> Vec<u8>,
    /// The result of an entry as it goes upstream; `None` if it does not.
    pub to_result: fn(&Bytes) -> Option<ActionResult>,
}

/// Files in PEM for TLS.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// Certificates of the CAs of the server; those of the system if there are none.
    pub ca: Option<PathBuf>,
    /// Our certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// When a new result is copied upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writes {
    /// After the client has its answer.
    #[default]
    Behind,
    /// Before the client has its answer. If that fails, later.
    Through,
    /// Never.
    Off,
}

impl FromStr for Writes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "behind" => Ok(Self::Behind),
            "through" => Ok(Self::Through),
            "off" => Ok(Self::Off),
            _ => Err("use behind, through or off".to_owned()),
        }
    }
}
