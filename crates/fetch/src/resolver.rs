//! Names of hosts to addresses, of which only public ones pass.
//!
//! The addresses that were checked are those that are connected to. A name that leads elsewhere a moment later gains nothing.

use std::error::Error;
use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::public::is_public;

/// A host all of whose addresses are those of networks or hosts.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} has no address on the internet, and this server asks hosts of its own network only where \
     --allow-fetch names them"
)]
pub(crate) struct NotPublic(String);

/// Resolves as the host does, and leaves out addresses that are not public.
pub(crate) struct PublicResolver;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port of the URL takes the place of this one.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            public_of(name.as_str(), found)
        })
    }
}

fn public_of(
    name: &str,
    found: impl Iterator<Item = SocketAddr>,
) -> Result<Addrs, Box<dyn Error + Send + Sync>> {
    let public: Vec<_> = found.filter(|address| is_public(address.ip())).collect();
    if public.is_empty() {
        return Err(NotPublic(name.to_owned()).into());
    }
    Ok(Box::new(public.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_pass() {
        let check = |found: &[&str], expected: Option<&[&str]>| {
            let found = found.iter().map(|address| address.parse().unwrap());
            let passed = public_of("a.example", found).ok();
            let passed = passed.map(|all| all.map(|it| it.to_string()).collect::<Vec<_>>());
            assert_eq!(
                passed.as_deref(),
                expected
                    .map(|list| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
                    .as_deref()
            );
        };
        check(&["1.1.1.1:0", "127.0.0.1:0", "[::1]:0"], Some(&["1.1.1.1:0"]));
        check(&["10.0.0.1:0", "[fd00::1]:0"], None);
        check(&[], None);
    }
}
