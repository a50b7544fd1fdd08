//! Tokens, and sockets in the file system.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use testkit::{Daemon, DigestFunction, Kit, Outcome, proto};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_token_lets_its_principal_in,
    a_socket_in_the_file_system_serves,
}

/// The longest that the daemon may take to listen, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

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
