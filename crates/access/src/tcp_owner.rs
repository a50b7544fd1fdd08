//! The user at the other end of a loopback TCP connection.
//!
//! The kernel lists the TCP sockets of this network namespace in `/proc/net/tcp` and `tcp6`, each with the
//! user who made it (proc_pid_net(5)). The client's socket is the one whose addresses are those of the
//! accepted one, the other way round.
//!
//! Limits:
//! - A socket belongs to the user who made it, also if another process uses it now. A program that forwards
//!   connections for others, such as a proxy that runs as root, counts as their owner.
//! - Connections from another network namespace or another machine are in no table here and are refused.
//! - The look-up happens once, when the connection is accepted.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The tables of the kernel. Clients with IPv6 sockets connect to IPv4 addresses too.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// The size of a read in bytes. It is large because the kernel may skip an entry between two reads while others
/// come and go.
const READ_BYTES: usize = 256 << 10;

/// The number of times that a socket is looked for, for the same reason.
const ATTEMPTS: u32 = 3;

/// `TCP_ESTABLISHED`. The kernel shows sockets in later states as root's once their owner has closed them.
const ESTABLISHED: &str = "01";

/// The user whose socket is connected from `client` to `server`; none if there is no such socket here.
pub(crate) fn owner(client: SocketAddr, server: SocketAddr) -> io::Result<Option<u32>> {
    let (client, server) = (canonical(client), canonical(server));
    for _ in 0..ATTEMPTS {
        for table in TABLES {
            let file = match File::open(table) {
                // A kernel without IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let mut lines = BufReader::with_capacity(READ_BYTES, file).lines();
            let found = lines.find_map(|line| match line {
                Ok(line) => owner_in_line(&line, client, server).map(Ok),
                Err(error) => Some(Err(error)),
            });
            if let Some(owner) = found.transpose()? {
                return Ok(Some(owner));
            }
        }
    }
    Ok(None)
}

/// The owner in a line of a table, if it is about that connection.
fn owner_in_line(line: &str, client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let is_it = address(fields.next()?)? == client
        && address(fields.next()?)? == server
        && fields.next()? == ESTABLISHED;
    // Queues, timer and retransmissions stand before it.
    if is_it { fields.nth(3)?.parse().ok() } else { None }
}

/// Parses `0100007F:1F90`: each 32 bits of the address as a number in the machine's byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |index: usize| {
        let digits = ip.get(8 * index..8 * (index + 1))?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            IpAddr::from(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(canonical(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?)))
}

/// The address without scope and flow, and an IPv4 address in IPv6 as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn lines_are_read() {
        let line = "   3: 0100007F:D431 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 123 1";
        let client = "127.0.0.1:54321".parse().unwrap();
        let server = "127.0.0.1:8080".parse().unwrap();
        let check = |line: &str, expected| {
            let line = if cfg!(target_endian = "little") { line.to_owned() } else { return };
            assert_eq!(owner_in_line(&line, client, server), expected, "{line}");
        };
        check(line, Some(1000));
        check(&line.replace("D431", "D432"), None);
        check(&line.replace(" 01 ", " 06 "), None);
        check(&line.replace("0100007F:1F90", "0100007E:1F90"), None);
        let mapped = "0000000000000000FFFF00000100007F";
        let in_ipv6 = line.replace("0100007F:D431", &format!("{mapped}:D431"));
        check(&in_ipv6.replace("0100007F:1F90", &format!("{mapped}:1F90")), Some(1000));
        for bad in ["", "sl local_address", "3: x y z", "3: 0100007F:D431 0100007F:1F90 01"] {
            check(bad, None);
        }
    }

    #[test]
    fn the_owner_of_a_connection_is_found_while_it_lasts() {
        for endpoint in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6.
            let Ok(listener) = TcpListener::bind(endpoint) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            let local = accepted.local_addr().unwrap();
            let own = rustix::process::geteuid().as_raw();
            assert_eq!(owner(peer, local).unwrap(), Some(own), "{endpoint}");
            let stranger = SocketAddr::new(peer.ip(), peer.port().wrapping_add(1));
            assert_eq!(owner(stranger, local).unwrap(), None, "{endpoint}");
            drop(client);
            assert_eq!(owner(peer, local).unwrap(), None, "{endpoint}: it has gone");
        }
    }
}
