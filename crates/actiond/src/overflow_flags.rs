//! The flags of `serve` about another engine that takes actions, and what is made of them.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use store::Store;
use upstream::{Address, Engine, EngineConfig, Headers, Security};

use crate::overflow::Overflow;
use crate::span::Span;

/// Flags about the other engine.
#[derive(Debug, Clone, clap::Args)]
pub struct OverflowArgs {
    /// Have this engine of the Remote Execution API run actions that wait too long for their turn, or
    /// that ask for another machine: grpc://HOST:PORT/INSTANCE or grpcs://HOST:PORT/INSTANCE
    #[arg(long, value_name = "ADDRESS")]
    pub overflow: Option<Address>,

    /// The time that an action waits for its turn here before it goes there
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "overflow")]
    pub overflow_wait: Span,

    /// Actions that are there at the same time
    #[arg(long, value_name = "N", default_value = "32", requires = "overflow")]
    pub overflow_jobs: NonZeroUsize,

    /// File with a header `name: value` a line, such as authorization, that every call to that
    /// engine carries; not readable by everybody
    #[arg(long, value_name = "FILE", requires = "overflow")]
    pub overflow_header_file: Option<PathBuf>,

    /// Certificates of the CAs of that engine in PEM [default: those of the system]
    #[arg(long, value_name = "FILE", requires = "overflow")]
    pub overflow_ca: Option<PathBuf>,
}

impl OverflowArgs {
    /// Connects to the engine, if there is one.
    ///
    /// # Errors
    /// When a file can't be used.
    pub(crate) fn open(
        &self,
        timeout: Duration,
        store: &Store,
    ) -> anyhow::Result<Option<Arc<Overflow>>> {
        let Some(address) = self.overflow.clone() else { return Ok(None) };
        let headers = self.overflow_header_file.as_deref().map(Headers::read).transpose();
        let headers = headers.context("--overflow-header-file")?.unwrap_or_default();
        if self.overflow_header_file.is_some() && address.is_in_the_clear() {
            tracing::warn!(%address, "the headers of --overflow-header-file travel in the clear; use grpcs://");
        }
        ensure!(
            self.overflow_ca.is_none() || address.tls,
            "--overflow-ca has no effect: {address} does not begin with grpcs://, so that nothing is sent by TLS"
        );
        ensure!(
            timeout >= Duration::from_secs(1),
            "--upstream-timeout: nothing is answered in no time; give 1s or more"
        );
        let config = EngineConfig {
            address: address.clone(),
            headers,
            security: Security { ca: self.overflow_ca.clone(), identity: None },
            timeout,
        };
        let engine = Engine::open(&config, store).context("--overflow")?;
        let (wait, jobs) = (self.overflow_wait.0, self.overflow_jobs);
        tracing::info!(%address, ?wait, jobs, "another engine takes what waits too long here");
        Ok(Some(Arc::new(Overflow::new(engine))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Flags {
        #[command(flatten)]
        overflow: OverflowArgs,
    }

    fn parsed(flags: &[&str]) -> Result<OverflowArgs, String> {
        let flags = ["serve"].iter().chain(flags);
        Flags::try_parse_from(flags).map(|it| it.overflow).map_err(|error| error.to_string())
    }

    #[test]
    fn there_is_no_engine_unless_it_is_named() {
        let flags = parsed(&[]).unwrap();
        assert!(flags.overflow.is_none());
        assert_eq!(
            (flags.overflow_wait.0, flags.overflow_jobs.get()),
            (Duration::from_secs(1), 32)
        );
        let flags = parsed(&["--overflow=grpcs://engine:443/main"]).unwrap();
        assert_eq!(flags.overflow.unwrap().to_string(), "grpcs://engine:443/main");
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        assert!(parsed(&["--overflow=s3://bucket"]).is_err());
        for flag in [
            "--overflow-header-file=h",
            "--overflow-ca=c",
            "--overflow-wait=2s",
            "--overflow-jobs=2",
        ] {
            let engine = "--overflow=grpc://e:1";
            assert!(parsed(&[flag]).is_err() && parsed(&[engine, flag]).is_ok(), "{flag}");
        }
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("root"), store::StoreOptions::default()).unwrap();
        let flags = parsed(&["--overflow=grpc://e:1", "--overflow-ca=c"]).unwrap();
        let refused = flags.open(Duration::from_secs(5), &store).err().unwrap();
        assert!(format!("{refused:#}").contains("grpcs://"), "{refused:#}");
        assert!(parsed(&["--overflow=grpc://e:1", "--overflow-jobs=0"]).is_err());
    }
}
