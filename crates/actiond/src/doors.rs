//! The listeners of `serve`, and what anonymous callers may do at each.

use access::{Connections, Listen, Listener, Place, Policy, Rights};
use anyhow::Context as _;

use crate::cli::ServeArgs;

/// Where `serve` listens when nobody says otherwise.
const DEFAULT: &str = "127.0.0.1:8980";

/// Opens all listeners.
///
/// # Errors
/// When a place can't be listened at, or must not be.
pub(crate) async fn open(
    arguments: &ServeArgs,
    policy: &Policy,
) -> anyhow::Result<(Connections, Vec<Place>)> {
    let mut listeners = access::inherited().context("taking over the sockets of systemd")?;
    let default = [DEFAULT.parse::<Listen>().context("the default place")?];
    let nothing_given = arguments.listen.is_empty() && listeners.is_empty();
    for listen in if nothing_given { &default } else { &*arguments.listen } {
        listeners.push(Listener::bind(listen, arguments.listen_mode).await?);
    }
    let mut doors = Vec::with_capacity(listeners.len());
    let mut places = Vec::with_capacity(listeners.len());
    for listener in listeners {
        let door = Door {
            is_tcp: matches!(listener.place(), Place::Tcp(_)),
            is_local: listener.is_local(),
            given: listener.anonymous(),
        };
        let place = listener.place().clone();
        let rights = door
            .anonymous(policy.has_principals(), arguments.insecure)
            .with_context(|| format!("listening on {place}"))?;
        places.push(place);
        doors.push((listener, rights));
    }
    Ok((Connections::new(doors), places))
}

/// What the rights of anonymous callers depend on.
#[derive(Debug, Clone, Copy)]
struct Door {
    is_tcp: bool,
    is_local: bool,
    given: Option<Rights>,
}

impl Door {
    /// The rights of anonymous callers.
    fn anonymous(self, has_principals: bool, insecure: bool) -> anyhow::Result<Rights> {
        if !self.is_local && !insecure {
            anyhow::ensure!(
                !has_principals,
                "tokens would travel in the clear beyond the loopback device; let something that \
                 speaks TLS stand before a local address, or give --insecure"
            );
            anyhow::ensure!(
                self.given.is_some(),
                "everybody who can connect could run actions and write results; say what they may \
                 do with ?anonymous=RIGHTS, or give --insecure"
            );
        }
        // Where there are principals, a client at a port has to be one. The mode of its file
        // guards a socket in the file system.
        let default = if has_principals && self.is_tcp { Rights::NONE } else { Rights::CLIENT };
        Ok(self.given.unwrap_or(default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_rights() {
        let read: Rights = "read".parse().unwrap();
        let door = |is_tcp, is_local, given| Door { is_tcp, is_local, given };
        let check = |door: Door, has_principals, insecure, expected: Option<Rights>| {
            let rights = door.anonymous(has_principals, insecure).ok();
            assert_eq!(rights, expected, "{door:?} {has_principals} {insecure}");
        };
        let loopback = door(true, true, None);
        check(loopback, false, false, Some(Rights::CLIENT));
        check(loopback, true, false, Some(Rights::NONE));
        check(door(true, true, Some(read)), true, false, Some(read));
        check(door(false, true, None), true, false, Some(Rights::CLIENT));
        let beyond = door(true, false, None);
        check(beyond, false, false, None);
        check(beyond, true, false, None);
        check(beyond, false, true, Some(Rights::CLIENT));
        check(beyond, true, true, Some(Rights::NONE));
        check(door(true, false, Some(read)), false, false, Some(read));
        check(door(true, false, Some(read)), true, false, None);
    }
}
