//! The lines of a `.bazelrc` for a server, for a person to paste.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use access::Place;

/// The lines that have Bazel run its actions on the server at `place`; with `rootfs=host` where the
/// operator allows that.
pub(crate) fn lines(place: &Place, allows_host_rootfs: bool) -> String {
    let executor = match place {
        Place::Tcp(address) => format!("grpc://{}", reachable(*address)),
        Place::Unix(_) => place.to_string(),
    };
    let mut lines = vec![format!("build --remote_executor={executor}")];
    if allows_host_rootfs {
        lines.push("build --remote_default_exec_properties=rootfs=host".to_owned());
    }
    lines.push("build --incompatible_strict_action_env".to_owned());
    lines.push("build --noremote_local_fallback".to_owned());
    lines.join("\n")
}

/// An address to connect to: a server that listens on all addresses is reached on the loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, allows_host_rootfs: bool, expected: &[&str]) {
        let place = address.parse::<access::Listen>().unwrap().place;
        let lines = lines(&place, allows_host_rootfs);
        let both = ["build --incompatible_strict_action_env", "build --noremote_local_fallback"];
        assert_eq!(lines.lines().collect::<Vec<_>>(), [expected, &both].concat());
    }

    #[test]
    fn the_host_rootfs_is_asked_for_only_where_it_is_allowed() {
        let executor = "build --remote_executor=grpc://127.0.0.1:8980";
        check("127.0.0.1:8980", false, &[executor]);
        let host = "build --remote_default_exec_properties=rootfs=host";
        check("127.0.0.1:8980", true, &[executor, host]);
    }

    #[test]
    fn the_address_is_one_to_connect_to() {
        check("0.0.0.0:1", false, &["build --remote_executor=grpc://127.0.0.1:1"]);
        check("[::]:1", false, &["build --remote_executor=grpc://[::1]:1"]);
        check("192.0.2.7:1", false, &["build --remote_executor=grpc://192.0.2.7:1"]);
        check("unix:/run/a.sock", false, &["build --remote_executor=unix:/run/a.sock"]);
    }
}
