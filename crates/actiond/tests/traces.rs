//! OpenTelemetry traces, as a collector gets them. The collector's messages and service are those of the crate of
//! OpenTelemetry, not those that the daemon is built with.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use testkit::proto::RequestMetadata;
use testkit::{Action, Daemon, DaemonBuilder, Kit, Outcome, ReservedAddress, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    an_action_is_a_span_below_that_of_its_client,
    the_actions_of_a_build_are_one_trace,
    a_trace_that_is_not_recorded_stays_so,
    what_waits_is_sent_at_the_end,
    a_collector_that_comes_later_gets_what_waits,
    a_collector_that_refuses_costs_no_action,
    spans_that_are_rejected_are_counted,
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// The answers of a collector.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Takes,
    Refuses,
    RejectsOne,
}

/// A collector that keeps what it gets.
#[derive(Debug, Clone)]
struct Collector {
    manner: Manner,
    got: Arc<Mutex<Vec<(MetadataMap, ExportTraceServiceRequest)>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.got.lock().unwrap().push((metadata, message));
        let partial_success = match self.manner {
            Manner::Takes => None,
            Manner::Refuses => return Err(Status::permission_denied("not \u{1b}[31myou")),
            Manner::RejectsOne => Some(ExportTracePartialSuccess {
                rejected_spans: 1,
                error_message: "one is too old".into(),
            }),
        };
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

impl Collector {
    /// Starts to serve at `address`, until the test ends.
    async fn at(address: SocketAddr, manner: Manner) -> anyhow::Result<Self> {
        let collector = Self { manner, got: Arc::default() };
        let listener = TcpListener::bind(address).await?;
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(collector)
    }

    fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        let resources = got.iter().flat_map(|(_, message)| &message.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The spans of actions, once there are that many.
    async fn actions(&self, count: usize) -> anyhow::Result<Vec<Span>> {
        let of_actions = || -> Vec<Span> {
            let spans = self.spans().into_iter();
            spans.filter(|span| span.kind == SpanKind::Server as i32).collect()
        };
        eventually("the spans arrive", || Ok(of_actions().len() >= count)).await?;
        let found = of_actions();
        ensure!(found.len() == count, "{found:?}");
        Ok(found)
    }

    fn calls(&self) -> usize {
        self.got.lock().unwrap().len()
    }
}

/// A daemon that sends traces there.
fn tracing_to(kit: &Kit, address: SocketAddr) -> anyhow::Result<DaemonBuilder> {
    kit.only_on_the_host("a guest has no network, and reaches no collector")?;
    let daemon = kit.daemon().host_rootfs().flag("--http=127.0.0.1:0");
    Ok(daemon.flag(format!("--otlp=grpc://{address}")))
}

async fn start(kit: &Kit, manner: Manner) -> anyhow::Result<(Daemon, Collector, ReservedAddress)> {
    let address = ReservedAddress::new()?;
    let collector = Collector::at(address.get(), manner).await?;
    Ok((tracing_to(kit, address.get())?.start().await?, collector, address))
}

/// Ends the daemon while the collector goes on.
async fn end(mut daemon: Daemon) -> Outcome {
    daemon.terminate()?;
    tokio::task::spawn_blocking(move || {
        ensure!(daemon.wait()?.success(), "{}", daemon.log());
        Ok(())
    })
    .await?
}

fn of_build(action: Action, build: &str) -> Action {
    action.sent_by(RequestMetadata {
        action_mnemonic: "Genrule".into(),
        target_id: "//a:b".into(),
        tool_invocation_id: build.into(),
        ..RequestMetadata::default()
    })
}

fn attributes(list: &[KeyValue]) -> HashMap<&str, String> {
    let text = |it: &KeyValue| match it.value.as_ref().and_then(|it| it.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => format!("{other:?}"),
    };
    list.iter().map(|it| (it.key.as_str(), text(it))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number among the metrics.
async fn metric(daemon: &Daemon, name: &str) -> anyhow::Result<u64> {
    let log = daemon.log();
    let rest = log.split_once("page and metrics on http://").context("the page is served")?.1;
    let address: SocketAddr = rest.split_once('/').context("an address")?.0.parse()?;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let line = answer.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    Ok(line.with_context(|| format!("{name}: {answer}"))?.parse()?)
}

async fn metric_becomes(daemon: &Daemon, name: &str, expected: u64) -> Outcome {
    testkit::eventually_async(name, async || Ok(metric(daemon, name).await? == expected)).await
}

async fn an_action_is_a_span_below_that_of_its_client(kit: Kit) -> Outcome {
    let address = ReservedAddress::new()?;
    let collector = Collector::at(address.get(), Manner::Takes).await?;
    let folder = tempfile::tempdir()?;
    let headers = folder.path().join("headers");
    std::fs::write(&headers, "authorization: Bearer secret\n")?;
    std::fs::set_permissions(&headers, std::fs::Permissions::from_mode(0o600))?;
    let flag = format!("--otlp-header-file={}", headers.display());
    let daemon = tracing_to(&kit, address.get())?.flag(flag).start().await?;
    let action = daemon.client().action("echo hi > out").output("out");
    let action = of_build(action, "b").in_trace(&format!("00-{TRACE}-{PARENT}-01"));
    let run = action.run().await?;
    let found = collector.actions(1).await?.remove(0);
    assert_eq!((hex(&found.trace_id), hex(&found.parent_span_id)), (TRACE.into(), PARENT.into()));
    assert_eq!(found.name, "Genrule");
    let known = attributes(&found.attributes);
    let digest = action.encode().0.to_string();
    for (name, expected) in [
        ("actiond.operation", run.name()),
        ("actiond.action", &digest),
        ("actiond.target", "//a:b"),
        ("actiond.invocation", "b"),
        ("actiond.cached", "false"),
        ("actiond.miss", "absent"),
        ("actiond.outputs", "1"),
        ("process.exit.code", "0"),
    ] {
        assert_eq!(known.get(name).map(String::as_str), Some(expected), "{name} of {known:?}");
    }
    // The stages are spans of their own, inside of it.
    let stages: Vec<Span> =
        collector.spans().into_iter().filter(|it| it.parent_span_id == found.span_id).collect();
    let names: Vec<&str> = stages.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["queued", "inputs", "sandbox", "set_up", "run", "end", "outputs"]);
    for stage in &stages {
        assert_eq!(hex(&stage.trace_id), TRACE);
        assert!(stage.start_time_unix_nano >= found.start_time_unix_nano, "{stage:?}");
        assert!(stage.end_time_unix_nano <= found.end_time_unix_nano, "{stage:?} {found:?}");
    }
    let (metadata, message) = collector.got.lock().unwrap()[0].clone();
    assert_eq!(metadata.get("authorization").context("the header")?, "Bearer secret");
    let resource = message.resource_spans[0].resource.clone().context("a resource")?;
    assert_eq!(attributes(&resource.attributes)["service.name"], "actiond");
    assert!(!daemon.log().contains("secret"));
    metric_becomes(&daemon, "actiond_traces_sent_actions_total", 1).await?;
    assert_eq!(metric(&daemon, "actiond_traces_dropped_actions_total").await?, 0);
    Ok(())
}

async fn the_actions_of_a_build_are_one_trace(kit: Kit) -> Outcome {
    let (daemon, collector, _address) = start(&kit, Manner::Takes).await?;
    let client = daemon.client();
    let good = || of_build(client.action("echo hi > out").output("out"), "build 1");
    good().run().await?;
    assert!(good().run().await?.from_cache());
    of_build(client.action("exit 3"), "build 1").run().await?;
    of_build(client.action("exit 4"), "build 2").run().await?;
    // A context that is malformed is as good as none.
    of_build(client.action("exit 5"), "build 1").in_trace("00-nonsense").run().await?;
    let found = collector.actions(5).await?;
    let traces: Vec<_> = found.iter().map(|it| it.trace_id.clone()).collect();
    assert!([1, 2, 4].into_iter().all(|index| traces[index] == traces[0]), "{traces:?}");
    assert_ne!(traces[3], traces[0]);
    assert!(found.iter().all(|it| it.parent_span_id.is_empty()), "{found:?}");
    assert_eq!(attributes(&found[1].attributes)["actiond.cached"], "true");
    let status = found[2].status.clone().context("a status")?;
    assert_eq!((status.code, status.message.as_str()), (StatusCode::Error as i32, "exit 3"));
    Ok(())
}

async fn a_trace_that_is_not_recorded_stays_so(kit: Kit) -> Outcome {
    let (daemon, collector, _address) = start(&kit, Manner::Takes).await?;
    let client = daemon.client();
    client.action("exit 3").in_trace(&format!("00-{TRACE}-{PARENT}-00")).run().await?;
    client.action("exit 4").in_trace(&format!("00-{TRACE}-{PARENT}-01")).run().await?;
    end(daemon).await?;
    let found = collector.actions(1).await?;
    assert_eq!(attributes(&found[0].attributes)["process.exit.code"], "4");
    Ok(())
}

async fn what_waits_is_sent_at_the_end(kit: Kit) -> Outcome {
    let (daemon, collector, _address) = start(&kit, Manner::Takes).await?;
    for code in 1..20 {
        daemon.client().action(&format!("exit {code}")).run().await?;
    }
    end(daemon).await?;
    // Nothing comes any more.
    collector.actions(19).await?;
    Ok(())
}

async fn a_collector_that_comes_later_gets_what_waits(kit: Kit) -> Outcome {
    let address = ReservedAddress::new()?;
    let daemon = tracing_to(&kit, address.get())?.start().await?;
    daemon.client().action("echo hi > out").output("out").run().await?.succeeded().await?;
    let failing = || Ok(daemon.log().contains("the collector takes no traces"));
    eventually("the log tells of it", failing).await?;
    let collector = Collector::at(address.get(), Manner::Takes).await?;
    daemon.client().action("exit 3").run().await?;
    // On a machine that is busy the first action may run out of tries.
    testkit::eventually_async("the spans arrive", async || {
        let sent = metric(&daemon, "actiond_traces_sent_actions_total").await?;
        Ok(sent == 2 || metric(&daemon, "actiond_traces_dropped_actions_total").await? == 1)
    })
    .await?;
    eventually("the log tells of it", || Ok(daemon.log().contains("takes traces again"))).await?;
    ensure!(!collector.spans().is_empty());
    Ok(())
}

async fn a_collector_that_refuses_costs_no_action(kit: Kit) -> Outcome {
    let (daemon, collector, _address) = start(&kit, Manner::Refuses).await?;
    daemon.client().action("echo hi > out").output("out").run().await?.succeeded().await?;
    metric_becomes(&daemon, "actiond_traces_dropped_actions_total", 1).await?;
    // It will not do better a second time.
    assert_eq!(collector.calls(), 1);
    // The log is read by another thread than the page.
    let told = || Ok(daemon.log().contains("the collector takes no traces"));
    eventually("the log tells of it", told).await?;
    let log = daemon.log();
    ensure!(!log.contains("\u{1b}[31myou"), "{log}");
    daemon.client().action("exit 3").run().await?;
    metric_becomes(&daemon, "actiond_traces_dropped_actions_total", 2).await
}

async fn spans_that_are_rejected_are_counted(kit: Kit) -> Outcome {
    let (daemon, _collector, _address) = start(&kit, Manner::RejectsOne).await?;
    daemon.client().action("exit 3").run().await?;
    metric_becomes(&daemon, "actiond_traces_rejected_spans_total", 1).await?;
    assert_eq!(metric(&daemon, "actiond_traces_sent_actions_total").await?, 1);
    eventually("the log tells of it", || Ok(daemon.log().contains("one is too old"))).await
}
