//! The queue, and the thread that sends spans to a collector.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use events::{Event, Finished, Listener};
use parking_lot::Mutex;
use proto::opentelemetry::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use proto::opentelemetry::proto::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use proto::opentelemetry::proto::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value,
};
use proto::opentelemetry::proto::resource::v1::Resource;
use proto::opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Request, Status};
use upstream::{Headers, Security};

use crate::collector::{Collector, Place};
use crate::error::{CALL_TIMEOUT, TracesError};
use crate::http::HttpCalls;
use crate::refusal::Refusal;
use crate::span::spans;

/// Actions that may wait for the thread. A second of the fastest builds; at about 1 KiB each they hold a few MiB at
/// most.
const QUEUE_LIMIT: usize = 4096;

/// Actions in one message. Each has eight spans and a few KiB at most, and collectors take 4 MiB.
const BATCH_MAX: usize = 256;

/// The time in which a batch is filled.
const BATCH_PERIOD: Duration = Duration::from_secs(1);

/// The pause before the second try, which doubles with each. Meanwhile the queue takes what comes.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The tries of a batch: with their pauses they last longer than the restart of a collector.
const TRIES_MAX: u32 = 5;

/// The time at the end for sending what still waits.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The collector, and how it is talked to.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its address.
    pub collector: Collector,
    /// The headers of every call.
    pub headers: Headers,
    /// TLS of a `grpcs` or `https` address.
    pub security: Security,
    /// The version of this program, as an attribute of all spans.
    pub version: &'static str,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Actions whose spans the collector took.
    pub sent: u64,
    /// Actions whose spans were lost: too many waited, or the collector did not take them.
    pub dropped: u64,
    /// Spans that the collector refused of those that it took.
    pub rejected_spans: u64,
}

/// The counters of a sender. They outlive it.
#[derive(Debug, Default)]
pub struct Counters {
    sent: AtomicU64,
    dropped: AtomicU64,
    rejected_spans: AtomicU64,
}

impl Counters {
    /// Reads them.
    pub fn stats(&self) -> Stats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Self { sent, dropped, rejected_spans } = self;
        Stats { sent: of(sent), dropped: of(dropped), rejected_spans: of(rejected_spans) }
    }
}

/// Sends the spans of answered operations.
#[derive(Debug)]
pub struct Traces {
    queue: mpsc::Sender<Arc<Finished>>,
    counters: Arc<Counters>,
    /// The thread, and what is dropped to tell it of the end.
    thread: Mutex<Option<(watch::Sender<()>, JoinHandle<()>)>>,
}

impl Traces {
    /// Starts the thread. The collector need not be there yet.
    ///
    /// # Errors
    /// When a file of TLS can't be used, or the thread can't be started.
    pub fn start(options: Options) -> Result<Self, TracesError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(TracesError::Thread)?;
        let calls = {
            let _inside = runtime.enter();
            Calls::new(&options)?
        };
        let (queue, waiting) = mpsc::channel(QUEUE_LIMIT);
        let (open, closing) = watch::channel(());
        let counters = Arc::<Counters>::default();
        let sender = Sender {
            waiting,
            closing: closing.clone(),
            calls,
            options,
            counters: Arc::clone(&counters),
            in_flight: 0,
            is_failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("traces".into())
            .spawn(move || runtime.block_on(run(sender, closing)))
            .map_err(TracesError::Thread)?;
        Ok(Self { queue, counters, thread: Mutex::new(Some((open, thread))) })
    }

    /// The counters.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Sends what is left, for a few seconds at most. Later spans are lost.
    pub fn close(&self) {
        let Some((open, thread)) = self.thread.lock().take() else { return };
        drop(open);
        if thread.join().is_err() {
            tracing::error!("the thread that sends traces ended by a panic");
        }
        let Stats { dropped, .. } = self.counters.stats();
        if dropped > 0 {
            tracing::warn!(dropped, "the traces of some actions were lost");
        }
    }
}

impl Listener for Traces {
    fn tell(&self, event: &Event) {
        let Event::Finished(finished) = event else { return };
        if finished.origin.trace.is_some_and(|context| !context.is_sampled) {
            return;
        }
        if self.queue.try_send(Arc::clone(finished)).is_err() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        self.close();
    }
}

/// Sends until everything is sent after the end, or [`CLOSE_TIMEOUT`] has passed since.
async fn run(mut sender: Sender, closing: watch::Receiver<()>) {
    let late = async {
        closed(closing).await;
        sleep(CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        () = sender.send_all() => return,
        () = late => {}
    }
    sender.lose(sender.in_flight + sender.waiting.len());
}

/// Waits for the end.
async fn closed(mut closing: watch::Receiver<()>) {
    while closing.changed().await.is_ok() {}
}

/// The calls of a collector, by the form of the protocol.
enum Calls {
    Grpc(TraceServiceClient<Channel>),
    Http(Box<HttpCalls>),
}

impl Calls {
    fn new(options: &Options) -> Result<Self, TracesError> {
        let Options { collector, headers, security, version } = options;
        match &collector.0 {
            Place::Grpc(address) => {
                let channel = upstream::connect(address, security, CALL_TIMEOUT);
                Ok(Self::Grpc(TraceServiceClient::new(channel.map_err(TracesError::Connect)?)))
            }
            Place::Http(url) => {
                let calls = HttpCalls::new(url.clone(), headers, security, version)?;
                Ok(Self::Http(Box::new(calls)))
            }
        }
    }

    async fn export(
        &mut self,
        message: ExportTraceServiceRequest,
        headers: &Headers,
    ) -> Result<ExportTraceServiceResponse, Refusal> {
        match self {
            Self::Grpc(client) => {
                let mut request = Request::new(message);
                headers.add_to(request.metadata_mut());
                request.set_timeout(CALL_TIMEOUT);
                Ok(client.export(request).await?.into_inner())
            }
            Self::Http(calls) => calls.export(&message).await,
        }
    }
}

struct Sender {
    waiting: mpsc::Receiver<Arc<Finished>>,
    closing: watch::Receiver<()>,
    calls: Calls,
    options: Options,
    counters: Arc<Counters>,
    /// Actions of the batch that is being sent.
    in_flight: usize,
    is_failing: bool,
}

impl Sender {
    async fn send_all(&mut self) {
        while let Some(batch) = self.next_batch().await {
            self.in_flight = batch.len();
            match self.send(&batch).await {
                Ok(rejected_spans) => {
                    let Counters { sent, rejected_spans: rejected, .. } = &*self.counters;
                    sent.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    rejected.fetch_add(rejected_spans, Ordering::Relaxed);
                    self.told(None);
                }
                Err(refusal) => {
                    self.lose(batch.len());
                    self.told(Some(&refusal));
                }
            }
            self.in_flight = 0;
        }
    }

    fn lose(&self, actions: usize) {
        self.counters.dropped.fetch_add(actions as u64, Ordering::Relaxed);
    }

    /// The next actions, as many as come in a [`BATCH_PERIOD`]; `None` at the end.
    async fn next_batch(&mut self) -> Option<Vec<Arc<Finished>>> {
        let first = tokio::select! {
            biased;
            first = self.waiting.recv() => first?,
            () = closed(self.closing.clone()) => {
                self.waiting.close();
                self.waiting.recv().await?
            }
        };
        let mut batch = vec![first];
        let fill = async {
            while batch.len() < BATCH_MAX {
                let Some(finished) = self.waiting.recv().await else { return };
                batch.push(finished);
            }
        };
        // A batch that is not full is as good.
        tokio::select! {
            biased;
            () = fill => {}
            () = sleep(BATCH_PERIOD) => {}
            () = closed(self.closing.clone()) => {}
        }
        Some(batch)
    }

    fn is_closing(&self) -> bool {
        self.closing.has_changed().is_err()
    }

    /// Sends a batch, and returns how many of its spans the collector refused.
    async fn send(&mut self, batch: &[Arc<Finished>]) -> Result<u64, Refusal> {
        let mut pause = RETRY_PAUSE;
        for _ in 1..TRIES_MAX {
            let asked_for = match self.try_to_send(batch).await {
                Err(refusal) if refusal.may_pass && !self.is_closing() => {
                    self.told(Some(&refusal));
                    refusal.pause.unwrap_or_default()
                }
                sent => return sent,
            };
            // The end of the server ends the pause.
            let _ = timeout(pause.max(asked_for), closed(self.closing.clone())).await;
            pause *= 2;
        }
        self.try_to_send(batch).await
    }

    async fn try_to_send(&mut self, batch: &[Arc<Finished>]) -> Result<u64, Refusal> {
        let message = message(batch, self.options.version);
        let answer = timeout(CALL_TIMEOUT, self.calls.export(message, &self.options.headers)).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded("no answer in time"))??;
        let Some(partial) = answer.partial_success else { return Ok(0) };
        let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
        if rejected > 0 {
            let reason = model::Printable::message(&partial.error_message);
            tracing::warn!(rejected, %reason, "the collector refused some spans");
        }
        Ok(rejected)
    }

    /// Logs when the collector begins to fail, and when it takes spans again.
    fn told(&mut self, failure: Option<&Refusal>) {
        let collector = &self.options.collector;
        match failure {
            Some(Refusal { code, reason, .. }) if !self.is_failing => {
                let reason = model::Printable::message(reason);
                tracing::warn!(%collector, code, %reason, "the collector takes no traces");
            }
            None if self.is_failing => {
                tracing::info!(%collector, "the collector takes traces again")
            }
            _ => {}
        }
        self.is_failing = failure.is_some();
    }
}

fn message(batch: &[Arc<Finished>], version: &str) -> ExportTraceServiceRequest {
    let attribute = |name: &str, value: &str| KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    };
    let resource = Resource {
        attributes: vec![
            attribute("service.name", "actiond"),
            attribute("service.version", version),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "actiond".to_owned(),
        version: version.to_owned(),
        ..InstrumentationScope::default()
    };
    let of_scope = ScopeSpans {
        scope: Some(scope),
        spans: batch.iter().flat_map(|finished| spans(finished)).collect(),
        ..ScopeSpans::default()
    };
    let of_resource = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![of_scope],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![of_resource] }
}
