//! Flags, as plain data.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use access::{Listen, Right, Rights, SocketMode};
use clap::{Arg, Args, Parser, Subcommand};
use clap_complete::Shell;
use inputroot::StrategyName;
use model::{ByteSize, DeclaredProperty, DigestFunctions, InstanceNames, UnknownProperties};
use store::{Durability, StoreSize};

use crate::action_ids::ActionIds;
use crate::client_verbs::ClientCommand;
use crate::fetch_flags::FetchArgs;
use crate::image::ImageArgs;
use crate::logging::LogArgs;
use crate::observers::HttpChoice;
use crate::overflow_flags::OverflowArgs;
use crate::root_directory;
#[cfg(feature = "vm")]
use crate::serve_vm::ServeVmArgs;
use crate::span::Span;
use crate::store_verbs::StoreArgs;
use crate::trace_flags::TraceArgs;
use crate::upstream_flags::UpstreamArgs;

pub mod worker;

use worker::WorkerArgs;

/// A remote execution worker and cache for one machine: every action in a
/// sandbox of its own.
#[derive(Debug, Parser)]
#[command(name = "linux-actiond", version, max_term_width = 100)]
pub struct Cli {
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the Remote Execution API, as root or as an ordinary user
    Serve(Box<ServeArgs>),
    /// Run one command with a server of its own
    Run(Box<RunArgs>),
    /// Serve the Remote Execution API from a small virtual machine
    #[cfg(feature = "vm")]
    ServeVm(Box<ServeVmArgs>),
    /// Run actions for the scheduler of a cluster
    Worker(Box<WorkerArgs>),
    /// Report which kernel features are available, and what is lost without the others
    Doctor(DoctorArgs),
    /// Check or show the configuration from files, environment and flags
    Config(ConfigArgs),
    /// Look at the store, make room in it, verify it and remove blobs, beside a server or without one
    Store(StoreArgs),
    /// Print the lines of a .bazelrc for a server with the same configuration
    Bazelrc(Box<ServeArgs>),
    /// Print a script that has a shell complete the words of this program
    Completions(CompletionsArgs),
    /// Import, list and remove images that actions can have as their root file system
    Image(ImageArgs),
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    Client(ClientCommand),
}

/// Flags of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    pub verb: ConfigVerb,
}

/// The verb for the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Check files, environment and flags as `serve` does, and say which files were read
    Check(Box<ServeArgs>),
    /// Print every setting with its value and where that comes from
    Show(Box<ServeArgs>),
}

/// Flags of `serve`. Each is also a setting of the configuration file and a
/// variable of the environment; see [`crate::configuration`].
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Configuration file [default: /etc/actiond/config.toml, then
    /// ~/.config/actiond/config.toml]. A flag such as --queue-limit is the key
    /// queue_limit there and the variable ACTIOND_QUEUE_LIMIT; flags go before
    /// variables, and these before the file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The listeners: ADDRESS:PORT or unix:PATH, as often as needed; after it
    /// ?anonymous=RIGHTS says what callers without credentials may do, such as read or
    /// read+execute, and ?tls=off leaves TLS out there [default: 127.0.0.1:8980 and, for ordinary
    /// users, $XDG_RUNTIME_DIR/actiond.sock, or the sockets of systemd]
    #[arg(long, value_name = "PLACE")]
    pub listen: Vec<Listen>,

    /// Mode of the sockets of --listen=unix:PATH
    #[arg(long, value_name = "MODE", default_value = "600")]
    pub listen_mode: SocketMode,

    /// Certificate of the server in PEM, followed by intermediate ones: TCP ports then
    /// speak TLS
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of that certificate in PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Certificates of the CAs of clients in PEM: every client at a TLS port then needs a
    /// certificate from one of them
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// File of the principals: their names, the hashes of their tokens or the names in
    /// their certificates, and their rights
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Listen beyond the loopback device without TLS or without asking who calls, so that
    /// others on the network can read and change what is sent, or run actions
    #[arg(long)]
    pub insecure: bool,

    /// Close TCP connections of other users of this machine than root and the one who runs the
    /// server, or also USER, by number; for loopback addresses only
    #[arg(
        long,
        value_name = "USER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "self"
    )]
    pub tcp_owner_only: Option<OwnerChoice>,

    /// Directory of the store and of running actions; on a disk, as far as
    /// performance matters, and not on overlayfs [default: /tmp/actiond for root, and for others
    /// actiond in $XDG_CACHE_HOME or ~/.cache]
    #[arg(
        long,
        value_name = "DIR",
        default_value_os_t = root_directory::default(),
        hide_default_value = true
    )]
    pub root: PathBuf,

    /// Digest functions that clients may use, the preferred one first: names with commas between,
    /// of sha256, blake3, sha384, sha512, sha1 and md5
    #[arg(long, value_name = "NAMES", default_value_t)]
    pub digest_functions: DigestFunctions,

    /// Instance names that clients may use, with commas between, an empty one being the default
    /// instance: `main,team/a` or `main,` [default: all]
    #[arg(long, value_name = "NAMES")]
    pub instance_names: Option<InstanceNames>,

    /// The disk space that the store may take: bytes such as 500g or 2Ti, or a share of the file
    /// system such as 40% [default: half of what is free at the first start, at most 100g]
    #[arg(long, value_name = "SIZE")]
    pub cas_size: Option<StoreSize>,

    /// The time for which blobs that a client was told about are kept, unless room can be made in no other
    /// way: a number with a unit s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "3h")]
    pub lease: Span,

    /// When uploads and results are on the disk: `lazy` is some seconds after the answer, and a crash of
    /// the machine costs at most the last 30 s and 1 GiB; `group` is before the answer, with one sync for
    /// all that wait
    #[arg(long, value_name = "WHEN", default_value = "lazy")]
    pub durability: Durability,

    /// Read and hash every stored blob again once in this many days, with idle priority; damaged
    /// ones are taken away, so that clients upload them again. 0 for never
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub scrub_days: u16,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    pub upstream: UpstreamArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    pub overflow: OverflowArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    pub fetch: FetchArgs,

    /// Let clients upload results of actions that they ran: on or off
    #[arg(long, value_name = "on|off", default_value = "on")]
    pub ac_update: Switch,

    /// Serve what is stored, and nothing else: no uploads, no actions
    #[arg(long, overrides_with = "read_only")]
    pub read_only: bool,

    /// The worker's name in results, the log and events [default: the host's name]
    #[arg(long, value_name = "NAME", value_parser = worker_name)]
    pub name: Option<String>,

    /// Actions that run at the same time [default: the number of cores]
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,

    /// Actions that may wait for their turn; more are refused
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub queue_limit: usize,

    /// Directory of the runtimes that actions ask for with the platform property
    /// `libc` [default: those in the executable, if it has any]
    #[arg(long, value_name = "DIR", conflicts_with = "runtime_image")]
    pub runtime_root: Option<PathBuf>,

    /// The same as a SquashFS image, made by `cargo xtask runtimes`
    #[arg(long, value_name = "FILE")]
    pub runtime_image: Option<PathBuf>,

    /// Let actions ask for the toolchains of a root file system with the
    /// platform property `rootfs=host`: this machine's, or the one in DIR
    #[arg(
        long,
        value_name = "DIR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "/"
    )]
    pub allow_host_rootfs: Option<PathBuf>,

    /// Declare a platform property that this worker satisfies, beside its
    /// operating system and architecture; can be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub platform: Vec<DeclaredProperty>,

    /// The treatment of platform properties that are unknown here: ignore them,
    /// or refuse the action
    #[arg(long, value_name = "ignore|refuse", default_value = "ignore")]
    pub unknown_properties: UnknownProperties,

    /// The way to present an action's inputs: auto, or one of the
    /// strategies that `doctor` lists
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub input_root_strategy: StrategyChoice,

    /// The first of the ids that actions have on this host as users and groups, one for each sandbox, where
    /// input roots allow it and the server is root; `off` for 65534, which all then share
    #[arg(long, value_name = "ID|off", default_value_t)]
    pub action_ids: ActionIds,

    /// Size of an action's /tmp, which is its /var/tmp too, e.g. 512m
    #[arg(long, value_name = "BYTES", default_value = "4g")]
    pub tmp_bytes: ByteSize,

    /// Size of an action's /dev/shm
    #[arg(long, value_name = "BYTES", default_value = "1g")]
    pub shm_bytes: ByteSize,

    /// Stop an action that writes more than this to its standard output, or to
    /// its standard error
    #[arg(long, value_name = "BYTES", default_value = "1g")]
    pub stream_limit_bytes: ByteSize,

    /// Refuse the outputs of an action if they are more files and directories
    /// than this
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub output_entries_limit: u64,

    /// Timeout of an action that asks for none [default: none]
    #[arg(long, value_name = "MS")]
    pub default_timeout_ms: Option<u64>,

    /// Longest timeout that an action may ask for, and that of actions that ask for none [default: none]
    #[arg(long, value_name = "MS")]
    pub max_timeout_ms: Option<u64>,

    /// The time that an action goes on after its last client is gone
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    pub orphan_grace_ms: u64,

    /// The time that running actions have after the first SIGTERM; a second one
    /// ends them at once
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    pub drain_timeout_ms: u64,

    /// Address of the page and the metrics, which anybody who can connect may read, or
    /// `off` [default: 127.0.0.1:8981, if it is free]
    #[arg(long, value_name = "ADDRESS", default_value = "default", hide_default_value = true)]
    pub http: HttpChoice,

    /// Append a JSON line for each answered operation to FILE; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub event_log: Option<PathBuf>,

    /// Keep a record of each execution and cache lookup for this many days, in the root directory;
    /// 0 for none
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub history_days: u16,

    /// The disk space that these records may take; the oldest go first
    #[arg(long, value_name = "BYTES", default_value = "256m")]
    pub history_bytes: ByteSize,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    pub traces: TraceArgs,

    /// Print the lines that Bazel needs in its .bazelrc to use this server, once it serves
    #[arg(long, overrides_with = "print_bazelrc")]
    pub print_bazelrc: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    pub log: LogArgs,
}

/// Flags of `run`: its own, and those of `serve`.
#[derive(Debug, Args)]
#[command(
    mut_args(in_help_of_run),
    long_about = "Run one command with a server of its own\n\n\
        Starts a server, sets ACTIOND_ENDPOINT to its place, runs the command, ends the server, and exits as \
        the command did. The server listens on a socket that only this user reaches, and its store is \
        temporary unless --root names one. All flags of `serve` can be given as well."
)]
pub struct RunArgs {
    /// Use the server that runs at --listen already, or where the configuration says
    #[arg(long)]
    pub shared: bool,

    /// Write the lines of a .bazelrc for the server to FILE, before the command starts
    #[arg(long, value_name = "FILE")]
    pub bazelrc_out: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    pub serve: ServeArgs,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Hides most flags of `serve` in the help of `run`, which takes all of them.
fn in_help_of_run(arg: Arg) -> Arg {
    match arg.get_id().as_str() {
        "shared" | "bazelrc_out" | "command" | "help" | "jobs" | "cas_size"
        | "allow_host_rootfs" => arg,
        "root" => arg
            .help("Directory of a store that is kept [default: a temporary one]")
            .hide_default_value(true),
        "listen" => arg
            .help("The listener of the server [default: a socket that only this user reaches]")
            .hide_default_value(true),
        "log" => arg.help("The log filter of the server [default: warn]").hide_default_value(true),
        _ => arg.hide(true),
    }
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell; bash loads it with `source <(linux-actiond completions bash)`
    pub shell: Shell,
}

/// A flag that is on or off by its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("neither on nor off".to_owned()),
        }
    }
}

impl ServeArgs {
    /// The rights that nobody has on this server.
    pub(crate) fn withheld(&self) -> Rights {
        let writes = [Right::WriteCas, Right::WriteAc, Right::Execute];
        match (self.read_only, self.ac_update) {
            (true, _) => Rights::of(writes),
            (false, Switch::Off) => Rights::of([Right::WriteAc]),
            (false, Switch::On) => Rights::NONE,
        }
    }
}

/// Checks a worker's name: it is in every result and in every line of the log.
fn worker_name(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > 255 || !is_plain {
        return Err("use 1 to 255 visible ASCII characters".to_owned());
    }
    Ok(text.to_owned())
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The directory that `serve` would use: its file system matters
    #[arg(
        long,
        value_name = "DIR",
        default_value_os_t = root_directory::default(),
        hide_default_value = true
    )]
    pub root: PathBuf,
}

/// `--tcp-owner-only`: who may connect beside the server's own user and root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerChoice(pub Option<u32>);

impl FromStr for OwnerChoice {
    type Err = String;

    fn from_str(user: &str) -> Result<Self, String> {
        if user == "self" {
            return Ok(Self(None));
        }
        let number = user.parse().map_err(|_| "use the number of a user, such as 1000")?;
        Ok(Self(Some(number)))
    }
}

/// `--input-root-strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrategyChoice(pub Option<StrategyName>);

impl FromStr for StrategyChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name == "auto" {
            return Ok(Self(None));
        }
        let names = StrategyName::ALL.map(StrategyName::as_str).join(", ");
        name.parse().map(|strategy| Self(Some(strategy))).map_err(|_| format!("use auto, {names}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_the_store() {
        let size = |flags: &[&str]| serve(flags).map(|it| it.cas_size);
        assert_eq!(size(&[]), Ok(None));
        assert_eq!(size(&["--cas-size=2Ti"]), Ok(Some(StoreSize::Bytes(2 << 40))));
        assert_eq!(size(&["--cas-size", "40%"]), Ok(Some(StoreSize::Percent(40))));
        assert!(size(&["--cas-size=1m"]).is_err());
    }
    use clap::CommandFactory as _;

    fn serve(flags: &[&str]) -> Result<ServeArgs, String> {
        let words = ["linux-actiond", "serve"].iter().chain(flags);
        match Cli::try_parse_from(words).map_err(|error| error.to_string())?.command {
            Command::Serve(arguments) => Ok(*arguments),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_host_rootfs_is_off_unless_asked_for() {
        let rootfs = |flags: &[&str]| serve(flags).unwrap().allow_host_rootfs;
        assert_eq!(rootfs(&[]), None);
        assert_eq!(rootfs(&["--allow-host-rootfs"]), Some("/".into()));
        assert_eq!(rootfs(&["--allow-host-rootfs=/srv/root"]), Some("/srv/root".into()));
        assert!(serve(&["--allow-host-rootfs", "/srv/root"]).is_err());
    }

    #[test]
    fn owners_of_connections() {
        let owner = |flags: &[&str]| serve(flags).map(|arguments| arguments.tcp_owner_only);
        assert_eq!(owner(&[]), Ok(None));
        assert_eq!(owner(&["--tcp-owner-only"]), Ok(Some(OwnerChoice(None))));
        assert_eq!(owner(&["--tcp-owner-only=1000"]), Ok(Some(OwnerChoice(Some(1000)))));
        for bad in ["root", "-1", ""] {
            assert!(owner(&[&format!("--tcp-owner-only={bad}")]).is_err(), "{bad}");
        }
    }

    #[test]
    fn strategies_are_chosen_by_name() {
        let strategy =
            |name| serve(&["--input-root-strategy", name]).map(|it| it.input_root_strategy);
        assert_eq!(strategy("auto"), Ok(StrategyChoice(None)));
        for name in StrategyName::ALL {
            assert_eq!(strategy(name.as_str()), Ok(StrategyChoice(Some(name))));
        }
        assert!(strategy("nonsense").is_err());
    }

    #[test]
    fn sizes_have_one_notation() {
        let tmp = |text| serve(&["--tmp-bytes", text]).map(|arguments| arguments.tmp_bytes);
        assert_eq!(tmp("2Gi"), Ok(ByteSize(2 << 30)));
        assert_eq!(tmp("1t"), Ok(ByteSize(1 << 40)));
        assert!(tmp("1kb").is_err());
    }

    #[test]
    fn a_platform_is_declared_property_by_property() {
        let flags = ["--platform=Pool=a", "--platform", "gpu=1", "--unknown-properties=refuse"];
        let arguments = serve(&flags).unwrap();
        let declared: Vec<_> =
            arguments.platform.iter().map(|it| (it.name.as_str(), it.value.as_str())).collect();
        assert_eq!(declared, [("Pool", "a"), ("gpu", "1")]);
        assert_eq!(arguments.unknown_properties, UnknownProperties::Refuse);
        assert!(serve(&["--platform", "Pool"]).is_err());
        assert!(serve(&["--unknown-properties", "warn"]).is_err());
    }
}
