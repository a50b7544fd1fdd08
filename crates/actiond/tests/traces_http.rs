//! OpenTelemetry traces over HTTP, and over TLS in both forms, as a collector gets them. The messages are those of the
//! crate of OpenTelemetry; the listener of HTTP is of a few lines here, and that of TLS is rustls's.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use testkit::pki::{Authority, Request};
use testkit::{Daemon, Kit, Outcome, eventually};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufStream,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::ServerTlsConfig;
use tonic::{Response, Status};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    spans_go_over_http,
    headers_come_from_a_file_or_the_environment,
    spans_go_over_tls,
    spans_go_by_grpc_over_tls,
    a_certificate_of_others_is_refused,
    a_busy_collector_is_asked_again,
    a_collector_that_refuses_over_http_costs_no_action,
    spans_that_are_rejected_over_http_are_counted,
    an_answer_without_end_is_not_read,
}

/// A call as the collector gets it.
#[derive(Debug, Clone)]
struct Call {
    path: String,
    headers: HashMap<String, String>,
    message: ExportTraceServiceRequest,
}

type Calls = Arc<Mutex<Vec<Call>>>;

/// The answer to the call of that number: a status line with headers, and a body.
type Answer = fn(usize) -> (&'static str, Vec<u8>);

/// A collector that keeps what it gets.
struct Collector {
    port: u16,
    calls: Calls,
}

fn taken(_: usize) -> (&'static str, Vec<u8>) {
    ("200 OK\r\ncontent-type: application/x-protobuf", Vec::new())
}

impl Collector {
    /// Listens until the test ends.
    async fn start(answer: Answer, tls: Option<TlsAcceptor>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let calls = Calls::default();
        let kept = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (calls, tls) = (Arc::clone(&kept), tls.clone());
                tokio::spawn(async move {
                    // The daemon breaks off connections that it does not trust.
                    let _ = match tls {
                        None => serve(stream, answer, &calls).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, answer, &calls).await,
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        });
        Ok(Self { port, calls })
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// The first call that comes.
    async fn call(&self) -> anyhow::Result<Call> {
        eventually("a call comes", || Ok(!self.calls().is_empty())).await?;
        Ok(self.calls().remove(0))
    }
}

/// Serves the requests of a connection, with HTTP/1.1 as far as the daemon speaks it.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    answer: Answer,
    calls: &Calls,
) -> anyhow::Result<()> {
    let mut stream = BufStream::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let path = line.strip_prefix("POST ").context("a POST")?.split(' ').next();
        let path = path.context("a path")?.to_owned();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length: usize = headers.get("content-length").context("a length")?.parse()?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let message = ExportTraceServiceRequest::decode(&*body)?;
        let number = calls.lock().unwrap().len();
        calls.lock().unwrap().push(Call { path, headers, message });
        let (head, body) = answer(number);
        let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
        stream.flush().await?;
    }
}

/// The certificate of a server, and the authority that made it.
struct World {
    _directory: tempfile::TempDir,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl World {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let authority = Authority::new("collectors")?;
        let ca = directory.path().join("ca.pem");
        authority.write(&ca)?;
        let identity = authority.sign(Request::server(&["127.0.0.1"])?)?;
        let files = identity.write(directory.path(), "collector")?;
        Ok(Self { _directory: directory, ca, certificate: files.certificate, key: files.key })
    }

    fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let certificates = CertificateDer::pem_file_iter(&self.certificate)?;
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&self.key)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
        Ok(TlsAcceptor::from(Arc::new(config.with_single_cert(certificates, key)?)))
    }
}

/// A daemon that sends traces there.
async fn start(kit: &Kit, flags: &[String]) -> anyhow::Result<Daemon> {
    kit.only_on_the_host("a guest has no network, and reaches no collector")?;
    let daemon = kit.daemon().host_rootfs().flag("--http=127.0.0.1:0");
    flags.iter().fold(daemon, |daemon, flag| daemon.flag(flag)).start().await
}

/// Runs an action whose span has that exit code.
async fn run(daemon: &Daemon, code: u8) -> Outcome {
    daemon.client().action(&format!("exit {code}")).run().await?;
    Ok(())
}

fn names(message: &ExportTraceServiceRequest) -> Vec<String> {
    let scopes = message.resource_spans.iter().flat_map(|it| &it.scope_spans);
    scopes.flat_map(|it| &it.spans).map(|span| span.name.clone()).collect()
}

/// A number among the metrics, once it is that.
async fn metric_becomes(daemon: &Daemon, name: &str, expected: &str) -> Outcome {
    let log = daemon.log();
    let rest = log.split_once("page and metrics on http://").context("the page is served")?.1;
    let address = rest.split_once('/').context("an address")?.0.to_owned();
    let line = format!("{name} {expected}");
    testkit::eventually_async(name, async || {
        let mut stream = tokio::net::TcpStream::connect(&address).await?;
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer.lines().any(|it| it == line))
    })
    .await
}

async fn spans_go_over_http(kit: Kit) -> Outcome {
    let collector = Collector::start(taken, None).await?;
    let daemon = start(&kit, &[format!("--otlp=http://127.0.0.1:{}", collector.port)]).await?;
    run(&daemon, 3).await?;
    let call = collector.call().await?;
    assert_eq!(call.path, "/v1/traces");
    assert_eq!(call.headers["content-type"], "application/x-protobuf");
    assert!(call.headers["user-agent"].starts_with("actiond/"), "{call:?}");
    let names = names(&call.message);
    assert_eq!(names[0], "action", "{names:?}");
    assert!(names.contains(&"run".to_owned()), "{names:?}");
    metric_becomes(&daemon, "actiond_traces_sent_actions_total", "1").await?;
    // The connection is used again.
    run(&daemon, 4).await?;
    metric_becomes(&daemon, "actiond_traces_sent_actions_total", "2").await
}

async fn headers_come_from_a_file_or_the_environment(kit: Kit) -> Outcome {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("headers");
    std::fs::write(&file, "authorization: Bearer secret\n")?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    let collector = Collector::start(taken, None).await?;
    let address = format!("--otlp=http://127.0.0.1:{}/of/tenant", collector.port);
    let flags = [address, format!("--otlp-header-file={}", file.display())];
    let daemon = start(&kit, &flags).await?;
    run(&daemon, 3).await?;
    let call = collector.call().await?;
    assert_eq!((&*call.path, &*call.headers["authorization"]), ("/of/tenant", "Bearer secret"));
    assert!(!daemon.log().contains("secret"));
    drop(daemon);

    let collector = Collector::start(taken, None).await?;
    let address = format!("--otlp=http://127.0.0.1:{}", collector.port);
    let variable = "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20secret,x-scope = a";
    let daemon = kit.daemon().host_rootfs().flag("--http=127.0.0.1:0").flag(address);
    let daemon = daemon.through(["env", variable]).start().await?;
    run(&daemon, 3).await?;
    let call = collector.call().await?;
    let of = |name: &str| call.headers.get(name).map(String::as_str);
    assert_eq!((of("authorization"), of("x-scope")), (Some("Bearer secret"), Some("a")));
    assert!(!daemon.log().contains("secret"));
    Ok(())
}

async fn spans_go_over_tls(kit: Kit) -> Outcome {
    let world = World::new()?;
    let collector = Collector::start(taken, Some(world.acceptor()?)).await?;
    let address = format!("--otlp=https://127.0.0.1:{}", collector.port);
    let daemon = start(&kit, &[address, format!("--otlp-ca={}", world.ca.display())]).await?;
    run(&daemon, 3).await?;
    assert_eq!(collector.call().await?.path, "/v1/traces");
    metric_becomes(&daemon, "actiond_traces_sent_actions_total", "1").await
}

/// A collector that speaks gRPC.
struct ByGrpc(Calls);

#[tonic::async_trait]
impl TraceService for ByGrpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (path, message) = (String::new(), request.into_inner());
        self.0.lock().unwrap().push(Call { path, headers: HashMap::new(), message });
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn spans_go_by_grpc_over_tls(kit: Kit) -> Outcome {
    let world = World::new()?;
    let identity = tonic::transport::Identity::from_pem(
        std::fs::read(&world.certificate)?,
        std::fs::read(&world.key)?,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("--otlp=grpcs://127.0.0.1:{}", listener.local_addr()?.port());
    let calls = Calls::default();
    let server = tonic::transport::Server::builder();
    let mut server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
    let server = server.add_service(TraceServiceServer::new(ByGrpc(Arc::clone(&calls))));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let daemon = start(&kit, &[address, format!("--otlp-ca={}", world.ca.display())]).await?;
    run(&daemon, 3).await?;
    eventually("a call comes", || Ok(!calls.lock().unwrap().is_empty())).await?;
    let message = calls.lock().unwrap()[0].message.clone();
    assert!(names(&message).contains(&"run".to_owned()), "{message:?}");
    metric_becomes(&daemon, "actiond_traces_sent_actions_total", "1").await
}

async fn a_certificate_of_others_is_refused(kit: Kit) -> Outcome {
    let (world, others) = (World::new()?, World::new()?);
    let collector = Collector::start(taken, Some(world.acceptor()?)).await?;
    let address = format!("--otlp=https://127.0.0.1:{}", collector.port);
    let daemon = start(&kit, &[address, format!("--otlp-ca={}", others.ca.display())]).await?;
    run(&daemon, 3).await?;
    let told = || Ok(daemon.log().contains("the collector takes no traces"));
    eventually("the log tells of it", told).await?;
    let log = daemon.log();
    ensure!(log.to_lowercase().contains("certificate"), "{log}");
    ensure!(collector.calls().is_empty(), "{:?}", collector.calls());
    Ok(())
}

async fn a_busy_collector_is_asked_again(kit: Kit) -> Outcome {
    let busy: Answer = |number| match number {
        0 => ("503 Service Unavailable\r\nretry-after: 1", b"later".to_vec()),
        _ => taken(number),
    };
    let collector = Collector::start(busy, None).await?;
    let daemon = start(&kit, &[format!("--otlp=http://127.0.0.1:{}", collector.port)]).await?;
    run(&daemon, 3).await?;
    metric_becomes(&daemon, "actiond_traces_sent_actions_total", "1").await?;
    let calls = collector.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(names(&calls[0].message), names(&calls[1].message));
    Ok(())
}

async fn a_collector_that_refuses_over_http_costs_no_action(kit: Kit) -> Outcome {
    let refuses: Answer =
        |_| ("401 Unauthorized\r\ncontent-type: text/plain", b"not \x1b[31myou".to_vec());
    let collector = Collector::start(refuses, None).await?;
    let daemon = start(&kit, &[format!("--otlp=http://127.0.0.1:{}", collector.port)]).await?;
    let action = daemon.client().action("echo hi > out").output("out");
    action.run().await?.succeeded().await?;
    metric_becomes(&daemon, "actiond_traces_dropped_actions_total", "1").await?;
    // It will not do better a second time.
    assert_eq!(collector.calls().len(), 1);
    let told = || Ok(daemon.log().contains("the collector takes no traces"));
    eventually("the log tells of it", told).await?;
    let log = daemon.log();
    ensure!(log.contains("401"), "{log}");
    ensure!(!log.contains("\u{1b}[31myou"), "{log}");
    Ok(())
}

async fn spans_that_are_rejected_over_http_are_counted(kit: Kit) -> Outcome {
    let rejects: Answer = |_| {
        let partial =
            ExportTracePartialSuccess { rejected_spans: 1, error_message: "one is too old".into() };
        let answer = ExportTraceServiceResponse { partial_success: Some(partial) };
        ("200 OK\r\ncontent-type: application/x-protobuf", answer.encode_to_vec())
    };
    let collector = Collector::start(rejects, None).await?;
    let daemon = start(&kit, &[format!("--otlp=http://127.0.0.1:{}", collector.port)]).await?;
    run(&daemon, 3).await?;
    metric_becomes(&daemon, "actiond_traces_rejected_spans_total", "1").await?;
    metric_becomes(&daemon, "actiond_traces_sent_actions_total", "1").await?;
    eventually("the log tells of it", || Ok(daemon.log().contains("one is too old"))).await?;
    Ok(())
}

async fn an_answer_without_end_is_not_read(kit: Kit) -> Outcome {
    let endless: Answer = |_| ("400 Bad Request", vec![b'x'; 8 << 20]);
    let collector = Collector::start(endless, None).await?;
    let daemon = start(&kit, &[format!("--otlp=http://127.0.0.1:{}", collector.port)]).await?;
    run(&daemon, 3).await?;
    metric_becomes(&daemon, "actiond_traces_dropped_actions_total", "1").await?;
    ensure!(daemon.log().lines().all(|line| line.len() < 10_000), "a long line");
    Ok(())
}
