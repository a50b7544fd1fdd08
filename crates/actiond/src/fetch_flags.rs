//! The flag about files that clients have the server fetch.

use std::sync::Arc;

use asset::Origin;
use clap::Args;

#[cfg(feature = "fetch")]
use fetch::Allowed;

/// The hosts, in a program without an HTTP client.
#[cfg(not(feature = "fetch"))]
type Allowed = String;

/// Flags about fetches.
#[derive(Debug, Clone, Args)]
pub struct FetchArgs {
    /// Let clients with the right write-cas have the server fetch http and https URLs, as Bazel's
    /// --experimental_remote_downloader does; from hosts on the internet, or from HOSTS: names and addresses with
    /// commas between, a port after one if only that is meant, and `public` for the internet
    #[arg(
        long,
        value_name = "HOSTS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "public"
    )]
    pub allow_fetch: Option<Allowed>,
}

impl FetchArgs {
    /// The origin that the flag configures; `None` without it.
    ///
    /// # Errors
    /// When there are no certificates of CAs on this machine, or no HTTP client in this program.
    #[cfg(feature = "fetch")]
    pub(crate) fn origin(&self) -> anyhow::Result<Option<Arc<dyn Origin>>> {
        use anyhow::Context as _;

        let Some(allowed) = self.allow_fetch.clone() else { return Ok(None) };
        tracing::info!(from = %allowed, "clients may have files fetched");
        let web = fetch::Web::new(allowed).context("--allow-fetch")?;
        Ok(Some(Arc::new(web)))
    }

    /// As above.
    #[cfg(not(feature = "fetch"))]
    pub(crate) fn origin(&self) -> anyhow::Result<Option<Arc<dyn Origin>>> {
        anyhow::ensure!(
            self.allow_fetch.is_none(),
            "--allow-fetch: this program was built without the feature `fetch`"
        );
        Ok(None)
    }
}
