//! The flags of `worker`: its own, and those of `serve` that are about actions and the store.

use std::ffi::OsString;

use anyhow::{Context as _, bail, ensure};
use clap::parser::ValueSource;
use clap::{Arg, Args, CommandFactory as _};
use cluster::config::{BrowserUrl, SchedulerProtocol};
use model::{InstanceName, InstanceNameError};
use upstream::{Address, AddressError, Place, Writes};

use super::{Cli, ServeArgs};

/// The verb.
const VERB: &str = "worker";

/// Flags of `serve` that a worker does not take, by the field that clap names them after, each with the reason.
const REFUSED: [(&str, &str); 24] = [
    ("config", "a worker is configured by its flags alone"),
    ("listen", NO_CLIENTS),
    ("listen_mode", NO_CLIENTS),
    ("tls_cert", NO_CLIENTS),
    ("tls_key", NO_CLIENTS),
    ("tls_client_ca", NO_CLIENTS),
    ("token_file", NO_CLIENTS),
    ("tcp_owner_only", NO_CLIENTS),
    ("ac_update", NO_CLIENTS),
    ("read_only", NO_CLIENTS),
    ("instance_names", NO_CLIENTS),
    ("allow_fetch", NO_CLIENTS),
    ("print_bazelrc", NO_CLIENTS),
    ("orphan_grace_ms", NO_CLIENTS),
    ("queue_limit", NO_QUEUE),
    ("unknown_properties", NO_QUEUE),
    ("overflow", NO_QUEUE),
    ("overflow_wait", NO_QUEUE),
    ("overflow_jobs", NO_QUEUE),
    ("overflow_header_file", NO_QUEUE),
    ("overflow_ca", NO_QUEUE),
    ("default_timeout_ms", TIMEOUTS),
    ("max_timeout_ms", TIMEOUTS),
    ("upstream_writes", "outputs are in the storage before the scheduler is told of them"),
];

const NO_CLIENTS: &str = "clients talk to the cluster, and a worker listens nowhere";

const NO_QUEUE: &str = "the scheduler chooses the actions, and queues them";

/// Flags that only Buildbarn's protocol has a place for, each with the reason.
const BUILDBARNS: [(&str, &str); 2] = [
    ("size_class", "its scheduler knows no sizes"),
    ("browser_url", "its answers have no place for a link"),
];

const TIMEOUTS: &str = "the scheduler sets the timeouts of actions";

/// Flags of `worker`: its own, and those of `serve` that are about actions and the store.
#[derive(Debug, Args)]
#[command(
    mut_args(in_help_of_worker),
    long_about = "Run actions for the scheduler of a cluster\n\n\
        Takes actions from the scheduler of Buildbarn or BuildGrid and runs them in the sandboxes of `serve`. Inputs \
        come from the storage of the cluster, and outputs go there before the scheduler is told. The local store is a \
        cache of that storage. \
        Flags of `serve` about actions and the store can be given as well."
)]
pub struct WorkerArgs {
    /// Where the scheduler listens for workers: grpc://HOST:PORT or grpcs://HOST:PORT
    #[arg(long, value_name = "ADDRESS", value_parser = scheduler)]
    pub scheduler: Address,

    /// The protocol of the scheduler: buildbarn, or bots, which is BuildGrid's
    #[arg(long, value_name = "buildbarn|bots", default_value = "buildbarn")]
    pub scheduler_protocol: SchedulerProtocol,

    /// Run actions whose instance name begins with this, or is this where the protocol is bots [default: all, or the
    /// empty name]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, value_parser = instance)]
    pub instance: InstanceName,

    /// The size of this worker among those with the same --platform properties, where the scheduler knows sizes
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub size_class: u32,

    /// Address of bb_browser, for a link to the action in each answer
    #[arg(long, value_name = "URL")]
    pub browser_url: Option<BrowserUrl>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    pub serve: ServeArgs,
}

/// An address that may have no instance name, so that its error shows none either.
fn scheduler(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error| match error {
        AddressError::Form => "use grpc://HOST:PORT or grpcs://HOST:PORT".to_owned(),
        error => error.to_string(),
    })
}

fn instance(text: &str) -> Result<InstanceName, InstanceNameError> {
    InstanceName::parse(text)
}

/// Gives some flags of `serve` the names and the help that they have for a worker, and hides those without a meaning.
fn in_help_of_worker(arg: Arg) -> Arg {
    match arg.get_id().as_str() {
        "upstream_cas" => arg
            .long("cas")
            .required(true)
            .help("Where the storage of the cluster has blobs: grpc://HOST:PORT or grpcs://HOST:PORT"),
        "upstream_ac" => arg.long("ac").help(
            "Where results that may be served again are stored, often the address of --cas [default: nowhere]",
        ),
        "upstream_header_file" => {
            arg.help("File with a header `name: value` a line, for every call to storage and scheduler")
        }
        "upstream_ca" => {
            arg.help("Certificates of the CAs of grpcs:// addresses in PEM [default: those of the system]")
        }
        "upstream_cert" => arg.help("Certificate in PEM to show to grpcs:// addresses"),
        "upstream_timeout" => arg.help("The time for an answer of the storage or the scheduler"),
        "platform" => arg.help(
            "A property of the actions that are for this worker; for Buildbarn they ask for exactly those that are given \
             here, for BuildGrid for some of them",
        ),
        "name" => arg.help("The worker's name in the cluster, which no other has [default: the host's name]"),
        id if REFUSED.iter().any(|(field, _)| *field == id) => arg.hide(true),
        _ => arg,
    }
}

impl WorkerArgs {
    /// Refuses what has no meaning for a worker: an operator who gives it believes that it does something.
    pub(crate) fn check(&self, words: &[OsString]) -> anyhow::Result<()> {
        let matches = Cli::command().try_get_matches_from(words)?;
        let given = matches.subcommand_matches(VERB).context("the verb is another one")?;
        for (field, reason) in REFUSED {
            if given.value_source(field) == Some(ValueSource::CommandLine) {
                bail!("--{} has no effect on a worker: {reason}", field.replace('_', "-"));
            }
        }
        if self.scheduler_protocol == SchedulerProtocol::Bots {
            for (field, reason) in BUILDBARNS {
                if given.value_source(field) == Some(ValueSource::CommandLine) {
                    let flag = field.replace('_', "-");
                    bail!("--{flag} has no effect with --scheduler-protocol=bots: {reason}");
                }
            }
        }
        let storage = [&self.serve.upstream.upstream_cas, &self.serve.upstream.upstream_ac];
        let storage: Vec<&Address> = storage
            .into_iter()
            .flatten()
            .map(|place| {
                place.server().with_context(|| {
                    format!(
                        "{place}: the storage of a cluster is a server: give grpc:// or grpcs://"
                    )
                })
            })
            .collect::<anyhow::Result<_>>()?;
        for address in storage.into_iter().chain([&self.scheduler]) {
            ensure!(
                address.instance.as_str().is_empty(),
                "{address}: give the instance name with --instance, and no address with one"
            );
        }
        self.serve.upstream.check_tls(Some(&self.scheduler))?;
        Ok(())
    }

    /// The flags of `serve`, as the worker is wired.
    pub(crate) fn settings(&self) -> ServeArgs {
        let mut settings = self.serve.clone();
        // Blobs are asked for under the beginning of the instance name; results have the whole.
        for place in [&mut settings.upstream.upstream_cas, &mut settings.upstream.upstream_ac]
            .into_iter()
            .flatten()
        {
            if let Place::Server(address) = place {
                address.instance = self.instance.clone();
            }
        }
        settings.upstream.upstream_writes = Writes::Off;
        settings.upstream.while_down = "actions wait for it";
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;
    use clap::Parser as _;

    fn parsed(flags: &[&str]) -> Result<WorkerArgs, String> {
        let words: Vec<OsString> =
            ["linux-actiond", VERB].iter().chain(flags).map(|&word| word.into()).collect();
        let cli = Cli::try_parse_from(&words).map_err(|error| error.to_string())?;
        let Command::Worker(arguments) = cli.command else { panic!("another verb") };
        arguments.check(&words).map_err(|error| format!("{error:#}"))?;
        Ok(*arguments)
    }

    const NEEDED: [&str; 2] = ["--scheduler=grpc://s:1", "--cas=grpc://c:2"];

    #[test]
    fn a_worker_needs_a_scheduler_and_a_storage() {
        let arguments = parsed(&NEEDED).unwrap();
        assert_eq!(arguments.scheduler.to_string(), "grpc://s:1");
        assert_eq!(arguments.settings().upstream.upstream_writes, Writes::Off);
        assert!(arguments.serve.upstream.upstream_ac.is_none());
        for needed in NEEDED {
            assert!(parsed(&[needed]).is_err());
        }
        let malformed = parsed(&["--scheduler=s:1", NEEDED[1]]).unwrap_err();
        assert!(malformed.contains("use grpc://HOST:PORT or grpcs://HOST:PORT\n"), "{malformed}");
    }

    #[test]
    fn the_instance_is_that_of_the_storage_too() {
        let flags = [&NEEDED[..], &["--ac=grpc://c:2", "--instance=a/b"]].concat();
        let settings = parsed(&flags).unwrap().settings();
        let UpstreamArgs { upstream_cas, upstream_ac, .. } = settings.upstream;
        let shown = [upstream_cas, upstream_ac].map(|it| it.unwrap().to_string());
        assert_eq!(shown, ["grpc://c:2/a/b", "grpc://c:2/a/b"]);
        let twice = parsed(&["--scheduler=grpc://s:1", "--cas=grpc://c:2/a"]).unwrap_err();
        assert!(twice.contains("--instance"), "{twice}");
        let objects = parsed(&["--scheduler=grpc://s:1", "--cas=s3://bucket"]).unwrap_err();
        assert!(objects.contains("grpc://"), "{objects}");
        assert!(parsed(&[&NEEDED[..], &["--instance=a//b"]].concat()).is_err());
        let unprotected = parsed(&[&NEEDED[..], &["--upstream-ca=c"]].concat()).unwrap_err();
        assert!(unprotected.contains("grpcs://"), "{unprotected}");
    }

    use crate::upstream_flags::UpstreamArgs;

    #[test]
    fn flags_of_a_server_are_refused() {
        for flag in ["--listen=127.0.0.1:1", "--read-only", "--token-file=a", "--max-timeout-ms=1"]
        {
            let refused = parsed(&[&NEEDED[..], &[flag]].concat()).unwrap_err();
            assert!(refused.contains("has no effect on a worker"), "{refused}");
        }
        let flags = ["--jobs=2", "--allow-host-rootfs", "--platform=a=b", "--cas-size=2g"];
        assert!(parsed(&[&NEEDED[..], &flags].concat()).is_ok());
    }

    #[test]
    fn flags_of_buildbarn_are_refused_elsewhere() {
        let bots = [&NEEDED[..], &["--scheduler-protocol=bots"]].concat();
        assert_eq!(parsed(&bots).unwrap().scheduler_protocol, SchedulerProtocol::Bots);
        for flag in ["--size-class=1", "--browser-url=http://b"] {
            assert!(parsed(&[&NEEDED[..], &[flag]].concat()).is_ok());
            let refused = parsed(&[&bots[..], &[flag]].concat()).unwrap_err();
            assert!(refused.contains("--scheduler-protocol=bots"), "{refused}");
        }
        assert!(parsed(&[&NEEDED[..], &["--scheduler-protocol=condor"]].concat()).is_err());
    }

    #[test]
    fn every_refused_flag_is_one_of_serve() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for (field, _) in REFUSED {
            assert!(serve.get_arguments().any(|it| it.get_id() == field), "{field}");
        }
    }
}
