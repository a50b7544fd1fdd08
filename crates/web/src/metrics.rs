//! Counters and histograms of events, and readings that are taken at each scrape, as Prometheus text.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use events::{Event, Finished, Listener, Miss};
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{
    CounterVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::open_metrics;

/// Mnemonics with a label of their own; later ones are counted as `other`. Real builds have some
/// dozens, and each costs a time series per result.
const MNEMONICS_MAX: usize = 100;

/// Longer mnemonics are counted as `other`.
const MNEMONIC_BYTES_MAX: usize = 64;

/// Principals with a label of their own; later ones are counted as `other`. The operator's file names principals, but
/// where it lists no certificate each client of the CA is one, and has two time series for each result.
const PRINCIPALS_MAX: usize = 200;

/// The label of callers without credentials. No principal's name in a file has a space in it.
const ANONYMOUS: &str = "no principal";

/// Seconds; from a no-op's stages, which take some 0.1 ms, to actions of minutes.
const STAGE_BUCKETS: [f64; 14] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0];

/// The type of a reading in Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadingKind {
    /// A value that goes up and down.
    Gauge,
    /// A count since the start of the daemon. Its name ends in `_total`.
    Counter,
}

/// A value that is read at each scrape, such as the free bytes of a disk.
pub struct Reading {
    /// Whether it can go down.
    pub kind: ReadingKind,
    /// The name without the prefix `actiond_`, with its unit last.
    pub name: &'static str,
    /// The description. Readings of one name have the same.
    pub help: &'static str,
    /// The label by which readings of one name differ, and its value here.
    pub label: Option<(&'static str, Cow<'static, str>)>,
    /// Reads it. Called on a thread that must not block.
    pub read: Box<dyn Fn() -> i64 + Send + Sync>,
}

/// A [`Reading`] as Prometheus's library wants it.
struct Registered {
    desc: Desc,
    reading: Reading,
}

impl Registered {
    fn new(reading: Reading) -> Result<Self, MetricsError> {
        let labels =
            reading.label.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let labels: HashMap<String, String> = labels.collect();
        let name = format!("actiond_{}", reading.name);
        let desc = Desc::new(name, reading.help.to_owned(), Vec::new(), labels)?;
        Ok(Self { desc, reading })
    }

    fn metric(&self) -> Metric {
        let value = (self.reading.read)() as f64;
        let mut metric = Metric::default();
        match self.reading.kind {
            ReadingKind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            ReadingKind::Gauge => {
                let mut gauge = prometheus::proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        let label = |(name, value): &(&str, Cow<'_, str>)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.to_string());
            pair
        };
        metric.set_label(self.reading.label.iter().map(label).collect());
        metric
    }
}

impl Collector for Registered {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(match self.reading.kind {
            ReadingKind::Gauge => MetricType::GAUGE,
            ReadingKind::Counter => MetricType::COUNTER,
        });
        family.set_metric(vec![self.metric()]);
        vec![family]
    }
}

/// An error of registering metrics: two of them have one name, or a name is not valid.
#[derive(Debug, thiserror::Error)]
#[error("the metrics cannot be registered")]
pub struct MetricsError(#[from] prometheus::Error);

/// The counters of events.
pub struct Metrics {
    registry: Registry,
    actions: IntCounterVec,
    stages: HistogramVec,
    cpu_seconds: CounterVec,
    output_bytes: IntCounter,
    lookups: IntCounterVec,
    hits: IntCounter,
    misses: IntCounterVec,
    set_up_failures: IntCounterVec,
    queued: IntGauge,
    running: IntGauge,
    principal_actions: IntCounterVec,
    principal_cpu_seconds: CounterVec,
    mnemonics: Mutex<HashSet<String>>,
    principals: Mutex<HashSet<String>>,
}

impl Metrics {
    /// All at zero, with these readings.
    ///
    /// # Errors
    /// [`MetricsError`] when a reading has the name of another metric, or one that is not valid.
    pub fn new(version: &str, readings: Vec<Reading>) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let build = IntGauge::with_opts(
            Opts::new("actiond_build_info", "The version that runs; always 1.")
                .const_label("version", version),
        )?;
        build.set(1);
        register(&registry, &build)?;
        let lookups = IntCounterVec::new(
            Opts::new(
                "actiond_action_cache_lookups_total",
                "Look-ups by GetActionResult; other_environment counts those of Execute too.",
            ),
            &["result"],
        )?;
        let metrics = Self {
            hits: lookups.with_label_values(&["hit"]),
            lookups,
            actions: IntCounterVec::new(
                Opts::new("actiond_actions_total", "Answered actions."),
                &["result", "mnemonic"],
            )?,
            stages: HistogramVec::new(
                HistogramOpts::new(
                    "actiond_action_stage_seconds",
                    "Time of the stages of actions that ran.",
                )
                .buckets(STAGE_BUCKETS.to_vec()),
                &["stage"],
            )?,
            cpu_seconds: CounterVec::new(
                Opts::new("actiond_action_cpu_seconds_total", "CPU time that actions used."),
                &["mode"],
            )?,
            output_bytes: IntCounter::new(
                "actiond_action_output_bytes_total",
                "Bytes that results of actions that ran name.",
            )?,
            misses: IntCounterVec::new(
                Opts::new(
                    "actiond_action_cache_misses_total",
                    "Requests for which the action cache had no result, by the kind of request and the reason.",
                ),
                &["request", "reason"],
            )?,
            set_up_failures: IntCounterVec::new(
                Opts::new(
                    "actiond_sandbox_failures_total",
                    "Actions whose sandbox could not be set up, by the step that failed.",
                ),
                &["step"],
            )?,
            queued: IntGauge::new("actiond_actions_queued", "Actions that wait for a slot.")?,
            running: IntGauge::new("actiond_actions_running", "Actions that a slot runs.")?,
            principal_actions: IntCounterVec::new(
                Opts::new("actiond_principal_actions_total", "Answered actions of each principal."),
                &["principal", "result"],
            )?,
            principal_cpu_seconds: CounterVec::new(
                Opts::new(
                    "actiond_principal_cpu_seconds_total",
                    "CPU time that the actions of each principal used.",
                ),
                &["principal"],
            )?,
            mnemonics: Mutex::default(),
            principals: Mutex::default(),
            registry,
        };
        let registry = &metrics.registry;
        register(registry, &metrics.actions)?;
        register(registry, &metrics.stages)?;
        register(registry, &metrics.cpu_seconds)?;
        register(registry, &metrics.output_bytes)?;
        register(registry, &metrics.lookups)?;
        register(registry, &metrics.misses)?;
        register(registry, &metrics.set_up_failures)?;
        register(registry, &metrics.queued)?;
        register(registry, &metrics.running)?;
        register(registry, &metrics.principal_actions)?;
        register(registry, &metrics.principal_cpu_seconds)?;
        metrics.add(readings)?;
        Ok(metrics)
    }

    /// All of them in Prometheus's text format, version 0.0.4.
    ///
    /// # Errors
    /// [`MetricsError`] when a metric cannot be encoded.
    pub fn encode(&self) -> Result<String, MetricsError> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }

    /// The same as OpenMetrics text.
    pub(crate) fn encode_open(&self) -> String {
        open_metrics::encode(&self.registry.gather())
    }

    /// Adds readings of parts that start later.
    ///
    /// # Errors
    /// [`MetricsError`] when a reading has the name of another metric, or one that is not valid.
    pub fn add(&self, readings: impl IntoIterator<Item = Reading>) -> Result<(), MetricsError> {
        for reading in readings {
            self.registry.register(Box::new(Registered::new(reading)?))?;
        }
        Ok(())
    }

    /// The numbers of waiting and of running actions.
    pub(crate) fn set_live(&self, queued: usize, running: usize) {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.queued.set(number(queued));
        self.running.set(number(running));
    }

    /// A request found no cached result.
    fn missed(&self, request: &str, miss: Option<Miss>) {
        if let Some(miss) = miss {
            self.misses.with_label_values(&[request, miss.as_str()]).inc();
        }
    }

    fn finished(&self, finished: &Finished) {
        self.missed("execute", finished.miss);
        let result = match (&finished.error, finished.exit_code) {
            (Some(failure), _) => failure.kind,
            (None, _) if finished.cached => "cached",
            (None, Some(0)) => "success",
            (None, _) => "failure",
        };
        if finished.miss == Some(Miss::OtherEnvironment) {
            self.lookups.with_label_values(&[OTHER_ENVIRONMENT]).inc();
        }
        if let Some(step) = finished.error.as_ref().and_then(|failure| failure.step.as_ref()) {
            // Steps are names of ours, some dozens.
            self.set_up_failures.with_label_values(&[step.as_str()]).inc();
        }
        let mnemonic = self.mnemonic(finished.origin.mnemonic.as_str());
        self.actions.with_label_values(&[result, &mnemonic]).inc();
        let principal = match finished.origin.principal.as_str() {
            "" => ANONYMOUS.to_owned(),
            name => bounded(&self.principals, PRINCIPALS_MAX, name),
        };
        self.principal_actions.with_label_values(&[principal.as_str(), result]).inc();
        for (stage, us) in finished.stages.reached() {
            let seconds = Duration::from_micros(us).as_secs_f64();
            self.stages.with_label_values(&[stage]).observe(seconds);
        }
        if let Some(usage) = finished.usage {
            for (mode, us) in [("user", usage.user_us), ("system", usage.system_us)] {
                let seconds = Duration::from_micros(us).as_secs_f64();
                self.cpu_seconds.with_label_values(&[mode]).inc_by(seconds);
                self.principal_cpu_seconds.with_label_values(&[&principal]).inc_by(seconds);
            }
        }
        if !finished.cached {
            self.output_bytes.inc_by(finished.output_bytes);
        }
    }

    /// A mnemonic as a label: a client can neither make the number of time series grow without bound
    /// nor put anything into the text but a word.
    fn mnemonic(&self, mnemonic: &str) -> String {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if mnemonic.is_empty() {
            return "none".to_owned();
        }
        if mnemonic.len() > MNEMONIC_BYTES_MAX || !mnemonic.bytes().all(is_word) {
            return "other".to_owned();
        }
        bounded(&self.mnemonics, MNEMONICS_MAX, mnemonic)
    }
}

/// `name` if it is among the first `max` names, and else `other`.
fn bounded(known: &Mutex<HashSet<String>>, max: usize, name: &str) -> String {
    let mut known = known.lock();
    if known.len() < max && !known.contains(name) {
        known.insert(name.to_owned());
    }
    if known.contains(name) { name.to_owned() } else { "other".to_owned() }
}

/// The label of a cached result that was computed with another root file system.
const OTHER_ENVIRONMENT: &str = "other_environment";

impl Listener for Metrics {
    fn tell(&self, event: &Event) {
        match event {
            Event::Finished(finished) => self.finished(finished),
            Event::LookedUp(lookup) => {
                let result = match lookup.miss {
                    // Its counter was looked up once: hits come by the ten thousands.
                    None => return self.hits.inc(),
                    Some(Miss::OtherEnvironment) => OTHER_ENVIRONMENT,
                    Some(_) => "miss",
                };
                self.lookups.with_label_values(&[result]).inc();
                self.missed("lookup", lookup.miss);
            }
            Event::Queued(_) | Event::Withdrawn { .. } | Event::Started { .. } => {}
        }
    }
}

fn register(
    registry: &Registry,
    metric: &(impl Collector + Clone + 'static),
) -> Result<(), MetricsError> {
    Ok(registry.register(Box::new(metric.clone()))?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use events::{Caller, Failure, Limits, LookedUp, Origin, Stages, Usage};
    use model::{Digest, DigestFunction, InstanceName};

    use super::*;

    fn finished(mnemonic: &str, change: impl FnOnce(&mut Finished)) -> Event {
        let mut finished = Finished {
            operation: "operations/1".into(),
            instance: String::new(),
            digest_function: "sha256",
            action: "a/1".into(),
            command: None,
            input_root: None,
            inputs: None,
            origin: Arc::new(Origin { mnemonic: mnemonic.into(), ..Origin::default() }),
            queued_at: SystemTime::now(),
            cached: false,
            miss: Some(Miss::Absent),
            limits: Limits::default(),
            exit_code: Some(0),
            error: None,
            stages: Stages { run_us: Some(20_000), ..Stages::default() },
            usage: Some(Usage { user_us: 1_500_000, ..Usage::default() }),
            outputs: 1,
            output_bytes: 10,
            worker: "here".into(),
            result: None,
        };
        change(&mut finished);
        Event::Finished(Arc::new(finished))
    }

    fn lookup(miss: Option<Miss>) -> Event {
        Event::LookedUp(Arc::new(LookedUp {
            instance: InstanceName::default(),
            action: Digest::of(DigestFunction::Sha256, b""),
            caller: Caller::default(),
            at: SystemTime::now(),
            miss,
        }))
    }

    fn text(events: &[Event]) -> String {
        let reading = |kind, name, label: Option<(&'static str, &'static str)>, value| Reading {
            kind,
            name,
            help: "A value.",
            label: label.map(|(name, value)| (name, value.into())),
            read: Box::new(move || value),
        };
        let readings = vec![
            reading(ReadingKind::Gauge, "disk_free_bytes", None, -42),
            reading(ReadingKind::Counter, "refused_total", Some(("reason", "limit")), 7),
            reading(ReadingKind::Counter, "refused_total", Some(("reason", "reserve")), 8),
        ];
        let metrics = Metrics::new("1.2.3", readings).unwrap();
        for event in events {
            metrics.tell(event);
        }
        metrics.encode().unwrap()
    }

    #[test]
    fn events_are_counted() {
        let failure = Failure { kind: "timed_out", step: None, message: "…".into() };
        let set_up =
            Failure { kind: "set_up", step: Some("mount proc".into()), message: "…".into() };
        let text = text(&[
            finished("CppCompile", |_| ()),
            finished("CppCompile", |it| it.exit_code = Some(1)),
            finished("CppCompile", |it| it.cached = true),
            finished("CppCompile", |it| it.miss = Some(Miss::OtherEnvironment)),
            finished("", |it| it.error = Some(failure)),
            finished("", |it| it.error = Some(set_up)),
            lookup(None),
            lookup(Some(Miss::Incomplete)),
            lookup(Some(Miss::OtherEnvironment)),
        ]);
        for line in [
            r#"actiond_actions_total{mnemonic="CppCompile",result="success"} 2"#,
            r#"actiond_actions_total{mnemonic="CppCompile",result="failure"} 1"#,
            r#"actiond_actions_total{mnemonic="CppCompile",result="cached"} 1"#,
            r#"actiond_actions_total{mnemonic="none",result="timed_out"} 1"#,
            r#"actiond_sandbox_failures_total{step="mount proc"} 1"#,
            r#"actiond_action_cache_lookups_total{result="hit"} 1"#,
            r#"actiond_action_cache_lookups_total{result="miss"} 1"#,
            r#"actiond_action_cache_lookups_total{result="other_environment"} 2"#,
            r#"actiond_action_cache_misses_total{reason="incomplete",request="lookup"} 1"#,
            r#"actiond_action_cache_misses_total{reason="absent",request="execute"} 5"#,
            r#"actiond_action_cache_misses_total{reason="other_environment",request="execute"} 1"#,
            r#"actiond_action_stage_seconds_bucket{stage="run",le="0.01"} 0"#,
            r#"actiond_action_stage_seconds_bucket{stage="run",le="0.03"} 6"#,
            r#"actiond_action_cpu_seconds_total{mode="user"} 9"#,
            "actiond_action_output_bytes_total 50",
            r#"actiond_build_info{version="1.2.3"} 1"#,
            "# TYPE actiond_disk_free_bytes gauge",
            "actiond_disk_free_bytes -42",
            "# TYPE actiond_refused_total counter",
            r#"actiond_refused_total{reason="limit"} 7"#,
            r#"actiond_refused_total{reason="reserve"} 8"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    fn of(principal: &str) -> Event {
        let origin = Arc::new(Origin { principal: principal.into(), ..Origin::default() });
        finished("", |it| it.origin = Arc::clone(&origin))
    }

    #[test]
    fn principals_are_counted_by_name() {
        let text = text(&[of("ci"), of("ci"), of("")]);
        for line in [
            r#"actiond_principal_actions_total{principal="ci",result="success"} 2"#,
            r#"actiond_principal_actions_total{principal="no principal",result="success"} 1"#,
            r#"actiond_principal_cpu_seconds_total{principal="ci"} 3"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn clients_with_certificates_cannot_make_endless_time_series() {
        let many = (0..2 * PRINCIPALS_MAX).map(|number| of(&format!("P{number}")));
        let text = text(&many.chain([of("a\"} 1\nforged 2")]).collect::<Vec<_>>());
        let series =
            text.lines().filter(|line| line.starts_with("actiond_principal_actions_total{"));
        assert_eq!(series.count(), PRINCIPALS_MAX + 1);
        assert!(!text.lines().any(|line| line.starts_with("forged")), "{text}");
    }

    #[test]
    fn a_client_cannot_make_endless_time_series() {
        let many = (0..3 * MNEMONICS_MAX).map(|number| finished(&format!("M{number}"), |_| ()));
        let hostile = ["a\"} 1\nforged 2", "é", &"x".repeat(MNEMONIC_BYTES_MAX + 1)]
            .map(|mnemonic| finished(mnemonic, |_| ()));
        let text = text(&many.chain(hostile).collect::<Vec<_>>());
        let series = text.lines().filter(|line| line.starts_with("actiond_actions_total{"));
        assert_eq!(series.count(), MNEMONICS_MAX + 1);
        let other = 2 * MNEMONICS_MAX + 3;
        let line = format!(r#"actiond_actions_total{{mnemonic="other",result="success"}} {other}"#);
        assert!(text.contains(&line), "{text}");
        assert!(!text.contains("forged"));
    }
}
