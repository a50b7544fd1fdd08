//! The flags of `serve` about the tier below the store, and what is made of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use store::Store;
use upstream::{
    Address, Config, Counts, Entries, Headers, Place, ResultsConfig, Security, Stats, Upstream,
    Writes,
};
use web::{Reading, ReadingKind};

use crate::span::Span;

/// How results become entries of the action cache and back.
const ENTRIES: Entries =
    Entries { of_result: worker::entry_of_others, to_result: worker::result_for_others };

/// Flags about the upstream.
#[derive(Debug, Clone, clap::Args)]
pub struct UpstreamArgs {
    /// Fetch blobs that are not in the store from this cache of the Remote Execution API,
    /// grpc://HOST:PORT/INSTANCE or grpcs://HOST:PORT/INSTANCE, or from these objects, file:///PATH,
    /// s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX; instance and prefix are optional
    #[arg(long, value_name = "ADDRESS")]
    pub upstream_cas: Option<Place>,

    /// Fetch cached results, and all that they name, from this one, and copy new results to it;
    /// often the address of --upstream-cas
    #[arg(long, value_name = "ADDRESS", requires = "upstream_cas")]
    pub upstream_ac: Option<Place>,

    /// When new results are copied: behind, after the client's answer and also after a restart;
    /// through, before it; or off
    #[arg(
        long,
        value_name = "behind|through|off",
        default_value = "behind",
        requires = "upstream_cas"
    )]
    pub upstream_writes: Writes,

    /// File with a header `name: value` a line, such as authorization, that every call to the
    /// upstream carries; not readable by everybody
    #[arg(long, value_name = "FILE", requires = "upstream_cas")]
    pub upstream_header_file: Option<PathBuf>,

    /// Certificates of the CAs of an upstream in PEM: alone for grpcs://, beside those of the system
    /// for objects [default: those of the system]
    #[arg(long, value_name = "FILE", requires = "upstream_cas")]
    pub upstream_ca: Option<PathBuf>,

    /// Certificate in PEM to show to a grpcs:// upstream
    #[arg(long, value_name = "FILE", requires = "upstream_key")]
    pub upstream_cert: Option<PathBuf>,

    /// Private key of that certificate in PEM
    #[arg(long, value_name = "FILE", requires = "upstream_cert")]
    pub upstream_key: Option<PathBuf>,

    /// The time for an answer of the upstream, or for its next piece; after three calls in a row
    /// without one, builds go on without the upstream until it answers again
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub upstream_timeout: Span,

    #[arg(skip = "builds go on without it")]
    #[allow(missing_docs, reason = "not a flag: words of the log")]
    pub while_down: &'static str,
}

impl UpstreamArgs {
    /// The upstream that the flags configure; `None` without one.
    ///
    /// # Errors
    /// When the file of headers can't be used.
    pub(crate) fn config(&self) -> anyhow::Result<Option<Config>> {
        let Some(cas) = self.upstream_cas.clone() else { return Ok(None) };
        let places = [Some(&cas), self.upstream_ac.as_ref()];
        if !places.into_iter().flatten().any(|place| place.server().is_some()) {
            for (flag, given) in [
                ("--upstream-header-file", &self.upstream_header_file),
                ("--upstream-cert", &self.upstream_cert),
            ] {
                ensure!(
                    given.is_none(),
                    "{flag} is for grpc:// and grpcs:// addresses: what {cas} asks for comes from the environment"
                );
            }
        }
        let headers = self.upstream_header_file.as_deref().map(Headers::read).transpose();
        let headers = headers.context("--upstream-header-file")?.unwrap_or_default();
        if self.upstream_header_file.is_some() {
            let servers = places.into_iter().flatten().filter_map(|place| place.server());
            for server in servers.filter(|server| server.is_in_the_clear()) {
                tracing::warn!(%server, "the headers of --upstream-header-file travel in the clear; use grpcs://");
            }
        }
        ensure!(
            self.upstream_timeout.0 >= Duration::from_secs(1),
            "--upstream-timeout: nothing is answered in no time; give 1s or more"
        );
        Ok(Some(Config {
            cas,
            action_cache: self
                .upstream_ac
                .clone()
                .map(|place| ResultsConfig { place, entries: ENTRIES }),
            headers,
            security: Security {
                ca: self.upstream_ca.clone(),
                identity: self.upstream_cert.clone().zip(self.upstream_key.clone()),
            },
            timeout: self.upstream_timeout.0,
            writes: self.upstream_writes,
            while_down: self.while_down,
        }))
    }

    /// Refuses the files of TLS where no address has it: an operator who gives them believes that the connection is
    /// protected. `scheduler` is the address of a worker's scheduler.
    ///
    /// # Errors
    /// Names the flag.
    pub(crate) fn check_tls(&self, scheduler: Option<&Address>) -> anyhow::Result<()> {
        let places: Vec<&Place> =
            [&self.upstream_cas, &self.upstream_ac].into_iter().flatten().collect();
        if places.iter().any(|place| place.server().is_none()) {
            return Ok(());
        }
        let mut servers = places.into_iter().filter_map(Place::server).chain(scheduler);
        let flag = match (&self.upstream_ca, &self.upstream_cert) {
            (Some(_), _) => "--upstream-ca",
            (None, Some(_)) => "--upstream-cert",
            (None, None) => return Ok(()),
        };
        ensure!(
            servers.any(|server| server.tls),
            "{flag} has no effect: no address begins with grpcs://, so that nothing is sent by TLS"
        );
        Ok(())
    }

    /// Puts the upstream below the store.
    ///
    /// # Errors
    /// When a file can't be used.
    pub(crate) fn open(&self, store: &Store) -> anyhow::Result<Option<Arc<Upstream>>> {
        let Some(config) = self.config()? else { return Ok(None) };
        let upstream =
            Upstream::open(&config, store).context("putting the upstream below the store")?;
        store.put_below(Arc::<Upstream>::clone(&upstream));
        let action_cache = config.action_cache.map(|it| it.place.to_string());
        tracing::info!(cas = %config.cas, ac = action_cache, writes = ?config.writes, "upstream");
        Ok(Some(upstream))
    }
}

/// A row of the table of metrics: kind, name, description, and how to read it.
type Row = (ReadingKind, &'static str, &'static str, fn(&Counts) -> u64);

use ReadingKind::{Counter, Gauge};

/// Every metric of a link. The label `tier` says which.
const ROWS: [Row; 11] = [
    (Gauge, "upstream_up", "Whether the upstream answered when it was last asked.", |it| {
        u64::from(it.is_up)
    }),
    (Counter, "upstream_hits_total", "Blobs or results that were fetched.", |it| it.hits),
    (Counter, "upstream_misses_total", "Blobs or results that the upstream does not have.", |it| {
        it.misses
    }),
    (Counter, "upstream_received_bytes_total", "Bytes that were fetched, unpacked.", |it| {
        it.received_bytes
    }),
    (Counter, "upstream_sent_bytes_total", "Bytes that were copied upstream, unpacked.", |it| {
        it.sent_bytes
    }),
    (Counter, "upstream_calls_total", "Calls, each try counted.", |it| it.calls),
    (Counter, "upstream_call_microseconds_total", "The time that calls took together.", |it| {
        it.call_us
    }),
    (Counter, "upstream_failures_total", "Calls that were not answered, or not in time.", |it| {
        it.failures
    }),
    (Counter, "upstream_refusals_total", "Calls that were answered with an error.", |it| {
        it.refusals
    }),
    (
        Counter,
        "upstream_damaged_total",
        "Blobs or results that were not what they were said to be, and were not used.",
        |it| it.damaged,
    ),
    (
        Counter,
        "upstream_skipped_total",
        "Blobs or results that were not asked for, because the upstream was down.",
        |it| it.skipped,
    ),
];

/// The metrics of a link.
pub(crate) fn rows(
    tier: &'static str,
    counts: impl Fn() -> Counts + Clone + Send + Sync + 'static,
) -> impl Iterator<Item = Reading> {
    ROWS.into_iter().map(move |(kind, name, help, read)| {
        let counts = counts.clone();
        let read = move || i64::try_from(read(&counts())).unwrap_or(i64::MAX);
        Reading { kind, name, help, label: Some(("tier", tier.into())), read: Box::new(read) }
    })
}

/// The metrics of an upstream.
pub(crate) fn readings(upstream: &Arc<Upstream>) -> Vec<Reading> {
    let reading = |kind, name, help, label, read: fn(&Stats) -> u64| {
        let upstream = Arc::clone(upstream);
        let read = move || i64::try_from(read(&upstream.stats())).unwrap_or(i64::MAX);
        Reading { kind, name, help, label, read: Box::new(read) }
    };
    let of_tier = |tier: &'static str, counts: fn(&Stats) -> Counts| {
        let upstream = Arc::clone(upstream);
        rows(tier, move || counts(&upstream.stats()))
    };
    let queue = [
        reading(Gauge, "upstream_queue", "Results that wait to be copied upstream.", None, |it| {
            it.queued
        }),
        reading(
            Counter,
            "upstream_dropped_total",
            "Results that were not copied: too many waited, or the upstream refused them.",
            None,
            |it| it.dropped,
        ),
    ];
    let tiers = of_tier("cas", |it| it.cas).chain(of_tier("ac", |it| it.action_cache));
    tiers.chain(queue).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Flags {
        #[command(flatten)]
        upstream: UpstreamArgs,
    }

    fn parsed(flags: &[&str]) -> Result<UpstreamArgs, String> {
        let flags = ["serve"].iter().chain(flags);
        Flags::try_parse_from(flags).map(|it| it.upstream).map_err(|error| error.to_string())
    }

    #[test]
    fn there_is_no_upstream_unless_it_is_named() {
        assert!(parsed(&[]).unwrap().config().unwrap().is_none());
        let config = parsed(&["--upstream-cas=grpc://c:1/i"]).unwrap().config().unwrap().unwrap();
        assert_eq!(config.cas.to_string(), "grpc://c:1/i");
        assert!(config.action_cache.is_none());
        assert_eq!((config.timeout, config.writes), (Duration::from_secs(5), Writes::Behind));
    }

    #[test]
    fn flags_that_need_others() {
        let cas = "--upstream-cas=grpc://c:1";
        assert!(parsed(&["--upstream-ac=grpc://c:1"]).is_err());
        assert!(parsed(&[cas, "--upstream-cert=c.pem"]).is_err());
        assert!(parsed(&[cas, "--upstream-cert=c.pem", "--upstream-key=k.pem"]).is_ok());
        assert!(parsed(&["--upstream-cas=http://c:1"]).is_err());
        assert!(parsed(&[cas, "--upstream-writes=later"]).is_err());
        assert!(parsed(&["--upstream-writes=through"]).is_err());
        assert!(parsed(&[cas, "--upstream-writes=through"]).is_ok());
        assert!(parsed(&[cas, "--upstream-timeout=0s"]).unwrap().config().is_err());
        let refused = parsed(&["--upstream-cas=grpc://user:password@c:1"]).unwrap_err();
        assert!(refused.contains("--upstream-header-file"), "{refused}");
    }

    #[test]
    fn files_of_tls_need_an_address_with_tls() {
        let (ca, pair) = (["--upstream-ca=c"], ["--upstream-cert=c", "--upstream-key=k"]);
        for files in [&ca[..], &pair[..]] {
            let check = |cas: &str, scheduler: Option<&str>| {
                let scheduler = scheduler.map(|it| it.parse().unwrap());
                let flags = parsed(&[&[cas], files].concat()).unwrap();
                flags.check_tls(scheduler.as_ref()).map_err(|error| format!("{error:#}"))
            };
            let refused = check("--upstream-cas=grpc://c:1", None).unwrap_err();
            assert!(refused.contains("grpcs://"), "{refused}");
            assert!(check("--upstream-cas=grpc://c:1", Some("grpc://s:1")).is_err());
            assert!(check("--upstream-cas=grpc://c:1", Some("grpcs://s:1")).is_ok());
            assert!(check("--upstream-cas=grpcs://c:1", None).is_ok());
        }
        let bucket = parsed(&["--upstream-cas=s3://bucket", "--upstream-ca=c"]).unwrap();
        assert!(bucket.check_tls(None).is_ok());
    }

    #[cfg(feature = "tls")]
    #[test]
    fn files_of_tls_that_are_something_else_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let [no_pem, pair, certificate] = ["no.pem", "pair.pem", "certificate.pem"]
            .map(|name| directory.path().join(name).to_str().unwrap().to_owned());
        let authority = testkit::pki::Authority::new("authority").unwrap();
        let client = testkit::pki::Request::client("worker").unwrap();
        let client = authority.sign(client).unwrap();
        std::fs::write(&no_pem, "no PEM").unwrap();
        std::fs::write(&certificate, client.certificate_pem()).unwrap();
        std::fs::write(&pair, client.certificate_pem() + &client.key_pem()).unwrap();
        let open = |flags: &[String]| {
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let flags = parsed(&[&["--upstream-cas=grpcs://c:1"], &flags[..]].concat()).unwrap();
            // A store has one tier.
            let root = tempfile::tempdir().unwrap();
            let store =
                Store::open(&root.path().join("root"), store::StoreOptions::default()).unwrap();
            let opened = flags.open(&store);
            opened.map(|upstream| upstream.unwrap().close()).map_err(|error| format!("{error:#}"))
        };
        let (ca, cert, key) = ("--upstream-ca", "--upstream-cert", "--upstream-key");
        for (flags, fault) in [
            ([format!("{ca}={no_pem}")].as_slice(), &no_pem),
            (&[format!("{cert}={no_pem}"), format!("{key}={pair}")], &no_pem),
            (&[format!("{cert}={pair}"), format!("{key}={certificate}")], &certificate),
        ] {
            let refused = open(flags).unwrap_err();
            assert!(refused.contains(&format!("{fault} has no ")), "{refused}");
        }
        assert_eq!(open(&[format!("{ca}={pair}")]), Ok(()));
        assert_eq!(open(&[format!("{cert}={pair}"), format!("{key}={pair}")]), Ok(()));
    }

    #[test]
    fn flags_of_servers_are_refused_for_objects() {
        let bucket = "--upstream-cas=s3://bucket/prefix";
        let config = parsed(&[bucket]).unwrap().config().unwrap().unwrap();
        assert_eq!(config.cas.to_string(), "s3://bucket/prefix");
        for flags in [
            &["--upstream-header-file=h"][..],
            &["--upstream-cert=c.pem", "--upstream-key=k.pem"][..],
        ] {
            let refused = parsed(&[&[bucket], flags].concat()).unwrap().config();
            let refused = format!("{:#}", refused.unwrap_err());
            assert!(refused.contains("from the environment"), "{refused}");
        }
        let both = [bucket, "--upstream-ac=grpc://c:1", "--upstream-cert=c", "--upstream-key=k"];
        assert!(parsed(&both).unwrap().config().is_ok());
        let refused = parsed(&["--upstream-cas=s3://key:secret@bucket"]).unwrap_err();
        assert!(refused.contains("in the environment"), "{refused}");
    }

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("root"), store::StoreOptions::default()).unwrap();
        let flags = parsed(&["--upstream-cas=grpc://127.0.0.1:1"]).unwrap();
        let upstream = flags.open(&store).unwrap().unwrap();
        let metrics = web::Metrics::new("1", readings(&upstream)).expect("names are valid");
        let text = metrics.encode().expect("a text");
        assert!(text.contains("actiond_upstream_up{tier=\"cas\"} 0\n"), "{text}");
        assert!(text.contains("actiond_upstream_queue 0\n"), "{text}");
        for (kind, name, ..) in ROWS {
            assert_eq!(name.ends_with("_total"), kind == Counter, "{name}");
        }
        upstream.close();
    }
}
