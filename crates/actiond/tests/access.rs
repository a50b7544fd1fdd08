//! Tokens, and sockets in the file system.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use testkit::google::longrunning::operations_client::OperationsClient;
use testkit::google::longrunning::{
    CancelOperationRequest, GetOperationRequest, ListOperationsRequest,
};
use testkit::wait::PATIENCE;
use testkit::{Client, Daemon, DigestFunction, Kit, Outcome, Run, proto};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_token_lets_its_principal_in,
    rights_are_those_of_the_instance,
    a_socket_in_the_file_system_serves,
    a_port_can_be_for_its_owner_only,
}

/// `printf %s secret | sha256sum`.
const HASH_OF_SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// Asks for a blob that is not there.
async fn read(channel: Channel, token: Option<&str>) -> Result<(), Status> {
    let message = proto::FindMissingBlobsRequest {
        digest_function: DigestFunction::Sha256.to_proto(),
        ..proto::FindMissingBlobsRequest::default()
    };
    let mut client =
        proto::content_addressable_storage_client::ContentAddressableStorageClient::new(channel);
    client.find_missing_blobs(with_token(message, token)).await.map(drop)
}

/// Uploads nothing.
async fn write(channel: Channel, token: Option<&str>) -> Result<(), Status> {
    let message = proto::BatchUpdateBlobsRequest {
        digest_function: DigestFunction::Sha256.to_proto(),
        ..proto::BatchUpdateBlobsRequest::default()
    };
    let mut client =
        proto::content_addressable_storage_client::ContentAddressableStorageClient::new(channel);
    client.batch_update_blobs(with_token(message, token)).await.map(drop)
}

fn with_token<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a token is ASCII");
        request.metadata_mut().insert("authorization", value);
    }
    request
}

fn code(outcome: Result<(), Status>) -> Code {
    outcome.err().map_or(Code::Ok, |status| status.code())
}

async fn a_token_lets_its_principal_in(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM has no principals")?;
    let directory = tempfile::tempdir()?;
    let tokens = directory.path().join("tokens.toml");
    let entry = format!("[[token]]\nname = 'ci'\nsha256 = '{HASH_OF_SECRET}'\nrights = ['read']\n");
    std::fs::write(&tokens, entry)?;
    let daemon = kit.daemon().flag("--token-file").flag(&tokens);
    // The first place of the kit has rights for all callers; a port without a word of them has none.
    let daemon = daemon.flag("--listen=127.0.0.1:0").start().await?;
    let port = second_port(&daemon).await?;
    let channel = Endpoint::from_shared(format!("http://{port}"))?.connect().await?;
    assert_eq!(code(read(channel.clone(), Some("secret")).await), Code::Ok);
    assert_eq!(code(read(channel.clone(), Some("wrong")).await), Code::Unauthenticated);
    assert_eq!(code(read(channel.clone(), None).await), Code::Unauthenticated);
    assert_eq!(code(write(channel, Some("secret")).await), Code::PermissionDenied);
    // A wrong token is an error where anonymous callers may do everything.
    let open = daemon.client().channel();
    assert_eq!(code(write(open.clone(), None).await), Code::Ok);
    assert_eq!(code(write(open, Some("wrong")).await), Code::Unauthenticated);
    Ok(())
}

/// A principal that has rights in one instance only.
struct Limited(Channel);

impl Limited {
    /// The server's answer to a call with the principal's token.
    async fn run(&self, client: &Client) -> anyhow::Result<Run> {
        let request = with_token(client.action("true").request(), Some("secret"));
        let mut execution = proto::execution_client::ExecutionClient::new(self.0.clone());
        let stream = execution.execute(request).await?.into_inner();
        Run::collect(client.clone(), stream).await
    }

    async fn cached(&self, instance: &str) -> Code {
        let request = proto::GetActionResultRequest {
            instance_name: instance.to_owned(),
            action_digest: Some(testkit::Digest::of(DigestFunction::Sha256, b"").to_proto()),
            ..proto::GetActionResultRequest::default()
        };
        let mut cache = proto::action_cache_client::ActionCacheClient::new(self.0.clone());
        code(cache.get_action_result(with_token(request, Some("secret"))).await.map(drop))
    }

    async fn publish(&self, instance: &str) -> Code {
        let request = proto::UpdateActionResultRequest {
            instance_name: instance.to_owned(),
            action_digest: Some(testkit::Digest::of(DigestFunction::Sha256, b"").to_proto()),
            action_result: Some(proto::ActionResult::default()),
            ..proto::UpdateActionResultRequest::default()
        };
        let mut cache = proto::action_cache_client::ActionCacheClient::new(self.0.clone());
        code(cache.update_action_result(with_token(request, Some("secret"))).await.map(drop))
    }

    async fn operations(&self) -> anyhow::Result<Vec<String>> {
        let request = with_token(ListOperationsRequest::default(), Some("secret"));
        let answer = OperationsClient::new(self.0.clone()).list_operations(request).await?;
        Ok(answer.into_inner().operations.into_iter().map(|operation| operation.name).collect())
    }

    /// The codes of looking at an operation and of cancelling it.
    async fn look_and_cancel(&self, name: &str) -> [Code; 2] {
        let mut operations = OperationsClient::new(self.0.clone());
        let look = with_token(GetOperationRequest { name: name.to_owned() }, Some("secret"));
        let look = code(operations.get_operation(look).await.map(drop));
        let cancel = with_token(CancelOperationRequest { name: name.to_owned() }, Some("secret"));
        [look, code(operations.cancel_operation(cancel).await.map(drop))]
    }
}

async fn rights_are_those_of_the_instance(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM has no principals")?;
    let directory = tempfile::tempdir()?;
    let tokens = directory.path().join("tokens.toml");
    let entry = format!(
        "[[token]]\nname = 'ci'\nsha256 = '{HASH_OF_SECRET}'\nrights = ['none']\n\
         instances = {{ main = ['client'], shown = ['read'] }}\n"
    );
    std::fs::write(&tokens, entry)?;
    let daemon = kit.daemon().host_rootfs().flag("--token-file").flag(&tokens);
    let daemon = daemon.flag("--listen=127.0.0.1:0").start().await?;
    let port = second_port(&daemon).await?;
    let limited = Limited(Endpoint::from_shared(format!("http://{port}"))?.connect().await?);
    for (instance, read, write) in [
        ("main", Code::NotFound, Code::Ok),
        ("shown", Code::NotFound, Code::PermissionDenied),
        ("other", Code::PermissionDenied, Code::PermissionDenied),
        ("main/below", Code::PermissionDenied, Code::PermissionDenied),
        ("", Code::PermissionDenied, Code::PermissionDenied),
    ] {
        assert_eq!(limited.cached(instance).await, read, "{instance}");
        assert_eq!(limited.publish(instance).await, write, "{instance}");
    }
    // Everybody at the kit's own place may do everything.
    let anybody = daemon.client();
    let others = anybody.with_instance("other").action("true").run().await?;
    others.succeeded().await?;
    let main = anybody.with_instance("main");
    main.action("true").upload().await?;
    let own = limited.run(&main).await?;
    own.succeeded().await?;
    assert!(limited.run(&anybody.with_instance("other")).await.is_err());
    // Of operations the principal sees its own instance's.
    assert_eq!(limited.operations().await?, [own.name()]);
    assert_eq!(limited.look_and_cancel(own.name()).await, [Code::Ok; 2]);
    assert_eq!(limited.look_and_cancel(others.name()).await, [Code::NotFound; 2]);
    let log = daemon.log();
    let finished: Vec<_> = log.lines().filter(|line| line.contains("action finished")).collect();
    ensure!(finished.len() == 2, "{log}");
    ensure!(
        !finished[0].contains("principal") && finished[1].contains("principal=\"ci\""),
        "{log}"
    );
    Ok(())
}

/// The second of the places that the daemon says it serves on.
async fn second_port(daemon: &Daemon) -> anyhow::Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = daemon.log();
        let mut places = log.lines().filter_map(|line| line.split_once("serving on "));
        if let Some((_, place)) = places.nth(1) {
            return Ok(place.trim().to_owned());
        }
        ensure!(Instant::now() < deadline, "the daemon names one place only:\n{log}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn a_socket_in_the_file_system_serves(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM has no sockets in the file system")?;
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("socket");
    let listen = format!("--listen=unix:{}", socket.display());
    let mut daemon = kit.daemon().flag(listen).start().await?;
    let channel = connect(&socket).await?;
    assert_eq!(code(read(channel.clone(), None).await), Code::Ok);
    assert_eq!(code(write(channel.clone(), None).await), Code::Ok);
    drop(channel);
    daemon.terminate()?;
    assert!(daemon.wait()?.success());
    ensure!(!socket.exists(), "the socket's file is left");
    Ok(())
}

async fn connect(socket: &Path) -> anyhow::Result<Channel> {
    let deadline = Instant::now() + PATIENCE;
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    loop {
        match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Another user than the one of these tests.
const STRANGER: &str = "65533";

/// Has another user connect and send the first bytes of HTTP/2, and tells whether the server answers.
fn answers_a_stranger(address: std::net::SocketAddr) -> anyhow::Result<bool> {
    let script = format!(
        "exec 3<>/dev/tcp/{}/{} && printf 'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' >&3 && \
         printf '\\0\\0\\0\\4\\0\\0\\0\\0\\0' >&3 && head -c 9 <&3 | wc -c",
        address.ip(),
        address.port()
    );
    let output = std::process::Command::new("setpriv")
        .args(["--reuid", STRANGER, "--clear-groups", "--", "bash", "-c", &script])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim() == "9")
}

async fn a_port_can_be_for_its_owner_only(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM does not know its callers")?;
    let open = kit.daemon().start().await?;
    let address = open.address();
    assert!(tokio::task::spawn_blocking(move || answers_a_stranger(address)).await??);
    let owned = kit.daemon().flag("--tcp-owner-only").start().await?;
    let address = owned.address();
    assert!(!tokio::task::spawn_blocking(move || answers_a_stranger(address)).await??);
    assert_eq!(code(read(owned.client().channel(), None).await), Code::Ok);
    let shared = kit.daemon().flag(format!("--tcp-owner-only={STRANGER}")).start().await?;
    let address = shared.address();
    assert!(tokio::task::spawn_blocking(move || answers_a_stranger(address)).await??);
    // Beyond the loopback nobody can be told apart.
    let listen = "0.0.0.0:0".parse()?;
    let beyond = kit.daemon().listen(listen).flag("--tcp-owner-only");
    let error = beyond.start().await.map(|_| ()).unwrap_err();
    ensure!(format!("{error:#}").contains("--tcp-owner-only tells users"), "{error:#}");
    Ok(())
}
