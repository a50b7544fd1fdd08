//! The flags of `serve` that the worker in a VM takes: those of `--worker-flag`.
//!
//! Flags about files, sockets and callers of the host can't work in the guest. They are refused, for an
//! operator who gives one of them believes that it protects something.

use anyhow::{Context as _, bail};
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};

use crate::cli::{Cli, Command, ServeArgs};

/// The verb whose flags these are.
const VERB: &str = "serve";

/// Flags that can't work in a guest, by the field that clap names them after, each with the reason.
const REFUSED: [(&str, &str); 27] = [
    ("config", NO_FILES),
    ("listen", HOST_LISTENS),
    ("listen_mode", HOST_LISTENS),
    ("tls_cert", HOST_LISTENS),
    ("tls_key", HOST_LISTENS),
    ("tls_client_ca", HOST_LISTENS),
    ("token_file", HOST_LISTENS),
    ("tcp_owner_only", HOST_LISTENS),
    ("insecure", HOST_LISTENS),
    ("root", "the store is on a disk of the VM, which --root of serve-vm holds"),
    ("runtime_root", NO_FILES),
    ("runtime_image", "give --runtime-image to serve-vm"),
    ("upstream_cas", NO_NETWORK),
    ("upstream_ac", NO_NETWORK),
    ("upstream_writes", NO_NETWORK),
    ("upstream_header_file", NO_NETWORK),
    ("upstream_ca", NO_NETWORK),
    ("upstream_timeout", NO_NETWORK),
    ("overflow", NO_NETWORK),
    ("overflow_wait", NO_NETWORK),
    ("overflow_jobs", NO_NETWORK),
    ("overflow_header_file", NO_NETWORK),
    ("overflow_ca", NO_NETWORK),
    ("allow_fetch", "a guest has no network, and opens no URL"),
    ("http", "a guest has no network, and serves no page"),
    ("event_log", NO_FILES),
    ("otlp", NO_TRACES),
];

const NO_NETWORK: &str = "a guest has no network, and its store no tier below";

const NO_TRACES: &str = "a guest has no network, and reaches no collector";

const NO_FILES: &str = "the guest sees no files of the host";

const HOST_LISTENS: &str = "the host listens, and serve-vm knows neither TLS nor principals: put its \
                            --listen on the loopback device, and what asks for credentials before it";

/// Checks flags on the host, before a VM is booted with them.
///
/// # Errors
/// For a flag that is unknown, or can't work in a guest.
pub fn check(flags: &[String]) -> anyhow::Result<()> {
    parse(flags, &[]).map(drop)
}

/// Parses flags, after the guest's `own` ones, which may be any.
///
/// # Errors
/// For a flag that is unknown, or can't work in a guest.
pub(crate) fn parse(flags: &[String], own: &[&str]) -> anyhow::Result<ServeArgs> {
    let words = |flags: &[String]| {
        let flags = flags.iter().cloned();
        ["linux-actiond", VERB].into_iter().map(str::to_owned).chain(flags).collect::<Vec<_>>()
    };
    let matches = Cli::command().try_get_matches_from(words(flags)).context("--worker-flag")?;
    let given = matches.subcommand_matches(VERB).context("--worker-flag takes flags of serve")?;
    for (field, reason) in REFUSED {
        if given.value_source(field) == Some(ValueSource::CommandLine) {
            bail!("--worker-flag=--{} has no effect in a VM: {reason}", field.replace('_', "-"));
        }
    }
    let own: Vec<_> = own.iter().map(|word| (*word).to_owned()).collect();
    let matches = Cli::command().try_get_matches_from(words(&[own, flags.to_vec()].concat()))?;
    match Cli::from_arg_matches(&matches)?.command {
        Command::Serve(arguments) => Ok(*arguments),
        _ => bail!("--worker-flag takes flags of serve"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(flags: &[&str]) -> Result<ServeArgs, String> {
        let flags: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
        parse(&flags, &["--root", "/cas"]).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn flags_of_actions_are_taken() {
        let arguments = parsed(&["--jobs=3", "--allow-host-rootfs", "--log=debug"]).unwrap();
        assert_eq!(arguments.jobs.map(std::num::NonZero::get), Some(3));
        assert_eq!(arguments.root, std::path::Path::new("/cas"));
    }

    #[test]
    fn flags_of_callers_and_files_are_refused() {
        for flag in [
            "--listen=127.0.0.1:1",
            "--listen-mode=600",
            "--tls-cert=a",
            "--tls-key=a",
            "--tls-client-ca=a",
            "--token-file=a",
            "--tcp-owner-only",
            "--insecure",
            "--root=/",
            "--config=a",
            "--runtime-root=/",
            "--runtime-image=a",
            "--http=off",
            "--event-log=a",
            "--allow-fetch",
            "--otlp=grpc://127.0.0.1:4317",
        ] {
            let error = parsed(&["--jobs=3", flag]).unwrap_err();
            let name = flag.split('=').next().unwrap();
            assert!(error.contains(&format!("--worker-flag={name} has no effect")), "{error}");
        }
        assert!(parsed(&["--nonsense"]).unwrap_err().contains("--nonsense"));
    }

    #[test]
    fn every_refused_flag_is_one_of_serve() {
        let command = Cli::command();
        let serve = command.find_subcommand(VERB).unwrap();
        for (field, _) in REFUSED {
            assert!(serve.get_arguments().any(|it| it.get_id() == field), "{field}");
        }
    }
}
