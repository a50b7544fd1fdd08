//! The lines of a `.bazelrc` for a server: those that `serve --print-bazelrc` prints once it serves, and
//! the verb `bazelrc`, which prints them for a server with the same configuration.
//!
//! The server knows neither the CA that signed its certificate nor anybody's secrets, so the lines about
//! these are comments for a person to complete.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use access::Endpoint;
use anyhow::ensure;
use model::InstanceNames;

use crate::cli::ServeArgs;
use crate::configuration::Configuration;
use crate::doors::{self, OpenEndpoint, Protection};
use crate::output::{print, tell};

/// The time to find out whether a server is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The comment above the name of a socket in the file system. Debian's Bazel is such a build, and its message names no cure.
const ABOUT_SOCKETS: [&str; 2] = [
    "# A Bazel that says \"Creating event loop groups is unsupported on this platform\" was built without sockets:",
    "# give linux-actiond --listen=127.0.0.1:0 then.",
];

/// The verb: prints the lines for the server that `flags` and the other layers of the configuration
/// describe.
///
/// # Errors
/// When the configuration is wrong, or names no endpoint that a client could connect to.
pub fn run(flags: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let arguments = Configuration::load(flags)?.arguments;
    let open = doors::first_place(&arguments)?;
    if let Endpoint::Tcp(address) = &open.endpoint {
        ensure!(
            address.port() != 0,
            "the server takes any free port: its first lines name it, and --listen=ADDRESS:PORT here \
             says which one it is"
        );
    }
    if let Err(error) = connect(&open.endpoint) {
        tell(format_args!("linux-actiond: no server is at {} now: {error}", open.endpoint));
    }
    if arguments.allow_host_rootfs.is_none() {
        tell(
            "linux-actiond: the flags and the configuration here do not allow the host's toolchains. If the server was \
             started with --allow-host-rootfs, give that flag here as well, for the line that asks for them",
        );
    }
    print(&format!("{}\n", lines(&open, &arguments)))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn connect(endpoint: &Endpoint) -> std::io::Result<()> {
    match endpoint {
        Endpoint::Tcp(address) => {
            TcpStream::connect_timeout(&reachable(*address), CONNECT_TIMEOUT).map(drop)
        }
        Endpoint::Unix(path) => UnixStream::connect(path).map(drop),
    }
}

/// The lines that have Bazel run its actions on the server at `open`; with `rootfs=host` where the
/// operator allows that.
pub(crate) fn lines(open: &OpenEndpoint, arguments: &ServeArgs) -> String {
    let mut lines = vec![];
    if matches!(open.endpoint, Endpoint::Unix(_)) {
        lines.extend(ABOUT_SOCKETS.map(str::to_owned));
    }
    lines.push(format!("build --remote_executor={}", executor(open)));
    let instance = arguments.instance_names.as_ref().map_or("", InstanceNames::preferred);
    if !instance.is_empty() {
        lines.push(format!("build --remote_instance_name={instance}"));
    }
    if open.protection != Protection::Plain {
        lines.push("# The CA of the server, unless the system trusts it:".to_owned());
        lines.push("# build --tls_certificate=/path/to/ca.pem".to_owned());
    }
    if open.protection == Protection::MutualTls {
        lines.push("# build --tls_client_certificate=/path/to/client.pem".to_owned());
        lines.push("# build --tls_client_key=/path/to/client.key".to_owned());
    }
    if arguments.token_file.is_some() && matches!(open.endpoint, Endpoint::Tcp(_)) {
        lines.push("# A token that the server knows; better in ~/.bazelrc:".to_owned());
        lines.push("# build --remote_header=authorization=\"Bearer TOKEN\"".to_owned());
    }
    if arguments.allow_host_rootfs.is_some() {
        lines.push("build --remote_default_exec_properties=rootfs=host".to_owned());
    }
    lines.push("build --incompatible_strict_action_env".to_owned());
    lines.push("build --noremote_local_fallback".to_owned());
    lines.join("\n")
}

/// The server at `open`, as `--remote_executor` names it.
pub(crate) fn executor(open: &OpenEndpoint) -> String {
    match (&open.endpoint, open.protection) {
        (Endpoint::Tcp(address), Protection::Plain) => format!("grpc://{}", reachable(*address)),
        (Endpoint::Tcp(address), _) => format!("grpcs://{}", reachable(*address)),
        (Endpoint::Unix(_), _) => open.endpoint.to_string(),
    }
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
    use clap::Parser as _;

    /// Checks the first lines for a server with these flags; the last two are always the same.
    #[track_caller]
    fn check(flags: &[&str], expected: &[&str]) {
        let words = ["linux-actiond", "serve"].iter().chain(flags);
        let arguments = match crate::cli::Cli::try_parse_from(words).unwrap().command {
            crate::cli::Command::Serve(arguments) => arguments,
            other => panic!("{other:?}"),
        };
        let lines = lines(&doors::first_place(&arguments).unwrap(), &arguments);
        let both = ["build --incompatible_strict_action_env", "build --noremote_local_fallback"];
        assert_eq!(lines.lines().collect::<Vec<_>>(), [expected, &both].concat());
    }

    #[test]
    fn the_host_rootfs_is_asked_for_only_where_it_is_allowed() {
        let executor = "build --remote_executor=grpc://127.0.0.1:8980";
        let instance = "build --remote_instance_name=team/a";
        check(&["--instance-names=team/a,b"], &[executor, instance]);
        check(&["--instance-names=team/a,"], &[executor]);
        check(&[], &[executor]);
        let host = "build --remote_default_exec_properties=rootfs=host";
        check(&["--allow-host-rootfs"], &[executor, host]);
    }

    #[test]
    fn the_address_is_one_to_connect_to() {
        let check = |endpoint: &str, executor: &str| {
            let executor = format!("build --remote_executor={executor}");
            let about = if endpoint.starts_with("unix:") { &ABOUT_SOCKETS[..] } else { &[] };
            check(&[&format!("--listen={endpoint}")], &[about, &[executor.as_str()]].concat());
        };
        check("0.0.0.0:1", "grpc://127.0.0.1:1");
        check("[::]:1", "grpc://[::1]:1");
        check("192.0.2.7:1", "grpc://192.0.2.7:1");
        check("unix:/run/a.sock", "unix:/run/a.sock");
    }

    #[test]
    fn credentials_are_asked_for_where_the_server_does() {
        let tls = ["--tls-cert=c", "--tls-key=k"];
        let executor = "build --remote_executor=grpcs://127.0.0.1:8980";
        let ca = [
            "# The CA of the server, unless the system trusts it:",
            "# build --tls_certificate=/path/to/ca.pem",
        ];
        let client = [
            "# build --tls_client_certificate=/path/to/client.pem",
            "# build --tls_client_key=/path/to/client.key",
        ];
        let token = [
            "# A token that the server knows; better in ~/.bazelrc:",
            "# build --remote_header=authorization=\"Bearer TOKEN\"",
        ];
        check(&tls, &[&[executor], &ca[..]].concat());
        let mutual = [&tls[..], &["--tls-client-ca=a"]].concat();
        check(&mutual, &[&[executor], &ca[..], &client].concat());
        let with_token = [&tls[..], &["--token-file=t"]].concat();
        check(&with_token, &[&[executor], &ca[..], &token].concat());
        let plain = [&with_token[..], &["--listen=127.0.0.1:1?tls=off"]].concat();
        check(&plain, &[&["build --remote_executor=grpc://127.0.0.1:1"], &token[..]].concat());
        let socket = [&with_token[..], &["--listen=unix:/run/a"]].concat();
        check(&socket, &[&ABOUT_SOCKETS[..], &["build --remote_executor=unix:/run/a"]].concat());
    }
}
