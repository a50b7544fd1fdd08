//! Everything an operator decides about the cluster.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use model::{DeclaredProperty, Digest, DigestFunctions, InstanceName};
use upstream::{Address, Headers, Security};

/// A cluster, and the part that this worker has in it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The language of the scheduler.
    pub protocol: SchedulerProtocol,
    /// Where the scheduler listens for workers.
    pub scheduler: Address,
    /// TLS of a `grpcs` address.
    pub security: Security,
    /// The headers of every call to the scheduler.
    pub headers: Headers,
    /// The time for an answer of the scheduler to a call that does not wait for an action.
    pub timeout: Duration,
    /// The beginning of the instance names of actions that are for this worker.
    pub instance: InstanceName,
    /// The properties that actions for this worker ask for: exactly these.
    pub platform: Vec<DeclaredProperty>,
    /// The size of this worker among those with the same properties.
    pub size_class: u32,
    /// The name of this worker among all others of the cluster.
    pub name: String,
    /// Actions that run at the same time.
    pub slots: NonZeroUsize,
    /// Where people look at actions.
    pub browser: Option<BrowserUrl>,
    /// The digest functions of actions that can run here.
    pub functions: DigestFunctions,
}

/// A protocol between workers and a scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SchedulerProtocol {
    /// Buildbarn's `OperationQueue`.
    #[default]
    Buildbarn,
    /// `Bots` of the Remote Workers API, as BuildGrid has it.
    Bots,
}

impl FromStr for SchedulerProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "buildbarn" => Ok(Self::Buildbarn),
            "bots" => Ok(Self::Bots),
            _ => Err("use buildbarn or bots".to_owned()),
        }
    }
}

/// The address of Buildbarn's bb_browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrowserUrl(String);

impl BrowserUrl {
    /// The page of an action, as bb_browser names it.
    pub(crate) fn action(&self, instance: &InstanceName, action: &Digest) -> String {
        let Self(base) = self;
        let (function, hash) = (action.function().name(), action.hex());
        let size_bytes = action.size_bytes();
        let instance = match instance.as_str() {
            "" => String::new(),
            instance => format!("{instance}/"),
        };
        format!("{base}/{instance}blobs/{function}/action/{hash}-{size_bytes}/")
    }
}

impl FromStr for BrowserUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_web = text.starts_with("http://") || text.starts_with("https://");
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_web || !is_plain {
            return Err("use http://HOST or https://HOST".to_owned());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::DigestFunction;

    #[test]
    fn pages_of_actions() {
        let browser: BrowserUrl = "http://browser.example/".parse().unwrap();
        let action = Digest::of(DigestFunction::Sha256, b"x");
        let (hash, root) = (action.hex(), InstanceName::default());
        let expected = format!("http://browser.example/blobs/sha256/action/{hash}-1/");
        assert_eq!(browser.action(&root, &action), expected);
        let named = InstanceName::parse("a/b").unwrap();
        let expected = format!("http://browser.example/a/b/blobs/sha256/action/{hash}-1/");
        assert_eq!(browser.action(&named, &action), expected);
        for bad in ["browser.example", "ftp://a", "http://a b", ""] {
            assert!(bad.parse::<BrowserUrl>().is_err(), "{bad}");
        }
    }
}
