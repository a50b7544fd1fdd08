//! Checks of what an action can rely on, and of what it must not reach.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// One thing to check.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Check {
    /// `/etc/hosts` resolves `localhost`.
    HostsHasLocalhost,
    /// Inputs can be rewritten, given other modes, and removed.
    InputsCanBeChanged,
    /// No input can be opened for writing, truncated or given another mode; a file beside it can be
    /// made.
    InputsAreReadOnly,
    /// No input can be opened for writing or truncated. Inputs may belong to the action's user, as with a server
    /// without root that has one id.
    InputsAreNotWritable,
    /// A TCP connection over 127.0.0.1 carries bytes.
    LoopbackWorks,
    /// There is no route to any other address.
    NetworkIsUnreachable,
}

impl FromStr for Check {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "hosts-has-localhost" => Ok(Self::HostsHasLocalhost),
            "inputs-can-be-changed" => Ok(Self::InputsCanBeChanged),
            "inputs-are-read-only" => Ok(Self::InputsAreReadOnly),
            "inputs-are-not-writable" => Ok(Self::InputsAreNotWritable),
            "loopback-works" => Ok(Self::LoopbackWorks),
            "network-is-unreachable" => Ok(Self::NetworkIsUnreachable),
            _ => Err(format!("unknown check {name:?}")),
        }
    }
}

pub(crate) fn run(check: &Check, inputs: &[PathBuf]) -> Result<(), String> {
    match check {
        Check::HostsHasLocalhost => hosts_has_localhost(),
        Check::InputsAreReadOnly => {
            inputs.iter().filter(|path| path.is_file()).try_for_each(is_read_only)
        }
        Check::InputsAreNotWritable => {
            inputs.iter().filter(|path| path.is_file()).try_for_each(is_not_writable)
        }
        Check::InputsCanBeChanged => inputs
            .iter()
            .filter(|path| path.is_file())
            .try_for_each(|path| change(path).map_err(|error| error.to_string())),
        Check::LoopbackWorks => loopback_works().map_err(|error| format!("loopback: {error}")),
        Check::NetworkIsUnreachable => network_is_unreachable(),
    }
}

fn hosts_has_localhost() -> Result<(), String> {
    let hosts = fs::read_to_string("/etc/hosts").map_err(|error| format!("/etc/hosts: {error}"))?;
    let found = hosts.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("127.0.0.1") && words.any(|word| word == "localhost")
    });
    if found { Ok(()) } else { Err("/etc/hosts does not name localhost".into()) }
}

fn allowed(act: &str, input: &Path) -> Result<(), String> {
    Err(format!("{act} {} was allowed", input.display()))
}

fn is_not_writable(input: &PathBuf) -> Result<(), String> {
    if OpenOptions::new().write(true).open(input).is_ok() {
        return allowed("writing to", input);
    }
    if OpenOptions::new().write(true).truncate(true).open(input).is_ok() {
        return allowed("truncating", input);
    }
    Ok(())
}

fn is_read_only(input: &PathBuf) -> Result<(), String> {
    is_not_writable(input)?;
    if fs::set_permissions(input, fs::Permissions::from_mode(0o777)).is_ok() {
        return allowed("changing the mode of", input);
    }
    let beside = input.with_extension("beside");
    fs::write(&beside, "new").map_err(|error| format!("creating {}: {error}", beside.display()))?;
    fs::remove_file(&beside).map_err(|error| format!("removing {}: {error}", beside.display()))
}

/// Rewrites the file in place, then puts another in its stead, then removes it.
fn change(input: &PathBuf) -> std::io::Result<()> {
    let named = |act: &str, error: std::io::Error| {
        std::io::Error::new(error.kind(), format!("{act} {}: {error}", input.display()))
    };
    OpenOptions::new()
        .append(true)
        .open(input)
        .and_then(|mut file| file.write_all(b"changed"))
        .map_err(|error| named("appending to", error))?;
    fs::set_permissions(input, fs::Permissions::from_mode(0o600))
        .map_err(|error| named("chmod of", error))?;
    let other = input.with_extension("other");
    fs::write(&other, "another").map_err(|error| named("creating beside", error))?;
    fs::rename(&other, input).map_err(|error| named("replacing", error))?;
    fs::remove_file(input).map_err(|error| named("removing", error))
}

fn loopback_works() -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    client.write_all(b"ping")?;
    let (mut server, _) = listener.accept()?;
    let mut received = [0; 4];
    server.read_exact(&mut received)?;
    if &received == b"ping" { Ok(()) } else { Err(std::io::Error::other("other bytes arrived")) }
}

/// Where there is a route, connecting to an address kept for documentation (RFC 5737) waits for an
/// answer that never comes; where there is none, the kernel refuses at once. Only that counts.
fn network_is_unreachable() -> Result<(), String> {
    let documentation = SocketAddr::from(([192, 0, 2, 1], 80));
    match TcpStream::connect_timeout(&documentation, Duration::from_secs(2)) {
        Err(error) if error.kind() == std::io::ErrorKind::NetworkUnreachable => Ok(()),
        Err(error) => Err(format!(
            "connecting to {documentation} failed, but not for want of a route: {error}"
        )),
        Ok(_) => Err(format!("connecting to {documentation} worked")),
    }
}
