//! A server of its own that knows its callers: by tokens at one place, by certificates at another.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testkit::google::longrunning::operations_client::OperationsClient;
use testkit::google::longrunning::{CancelOperationRequest, GetOperationRequest};
use testkit::pki::{Authority, Identity, Request};
use testkit::tls::TlsClient;
use testkit::{Client, Daemon, Kit};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::world::PATIENCE;

/// The name in the server's certificate.
const NAME: &str = "127.0.0.1";

/// One principal of the file.
pub(crate) struct Token {
    pub(crate) name: &'static str,
    pub(crate) token: &'static str,
    rights: &'static str,
}

/// The principals with tokens.
pub(crate) const TOKENS: [Token; 4] = [
    Token { name: "reader", token: "token-of-reader", rights: "rights = ['read']" },
    Token {
        name: "builder",
        token: "token-of-builder",
        rights: "rights = ['none']\ninstances = { main = ['client'] }",
    },
    Token {
        name: "other",
        token: "token-of-other",
        rights: "rights = ['none']\ninstances = { other = ['client'] }",
    },
    Token { name: "leaver", token: "token-of-leaver", rights: "rights = ['client']" },
];

/// The server and its clients' credentials. The server ends when this is dropped.
pub(crate) struct Guarded {
    daemon: Daemon,
    directory: tempfile::TempDir,
    servers: Authority,
    clients: Authority,
    /// Where tokens are asked for, without TLS.
    tokens: SocketAddr,
    /// Where certificates are asked for.
    certificates: SocketAddr,
}

impl Guarded {
    /// Starts the server.
    pub(crate) async fn start(program: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (servers, clients) = (Authority::new("servers")?, Authority::new("clients")?);
        clients.write(&directory.path().join("clients.pem"))?;
        servers.sign(Request::server(&[NAME])?)?.write(directory.path(), "server")?;
        std::fs::write(directory.path().join("principals.toml"), principals(&[]))?;
        let flag =
            |name: &str, file: &str| format!("--{name}={}", directory.path().join(file).display());
        let daemon = Kit::new(program).daemon().without_tls();
        let daemon = daemon.flag("--listen=127.0.0.1:0?tls=off").flag("--listen=127.0.0.1:0");
        let daemon =
            daemon.flag(flag("tls-cert", "server.pem")).flag(flag("tls-key", "server.key"));
        let daemon = daemon.flag(flag("tls-client-ca", "clients.pem"));
        let daemon = daemon.flag(flag("token-file", "principals.toml")).start().await?;
        let (tokens, certificates) = (place(&daemon, 1).await?, place(&daemon, 2).await?);
        Ok(Self { daemon, directory, servers, clients, tokens, certificates })
    }

    /// A client at a place where anybody may do everything, which an operator would keep to himself.
    pub(crate) fn operator(&self) -> Client {
        self.daemon.client()
    }

    /// A connection to the place that asks for tokens.
    pub(crate) async fn connect(&self) -> Result<Channel> {
        Ok(Endpoint::from_shared(format!("http://{}", self.tokens))?.connect().await?)
    }

    /// The certificate of a client with this common name, of the CA that the server asks.
    pub(crate) fn certificate(&self, request: Request) -> Result<Identity> {
        self.clients.sign(request)
    }

    /// A certificate of the CA of servers.
    pub(crate) fn certificate_of_servers(&self, request: Request) -> Result<Identity> {
        self.servers.sign(request)
    }

    /// A connection to the place that asks for certificates.
    pub(crate) async fn connect_showing(&self, identity: Option<&Identity>) -> Result<Channel> {
        TlsClient::new(&self.servers, identity)?.channel(self.certificates, NAME).await
    }

    /// Connects without TLS to the listener that requires client certificates.
    pub(crate) async fn connect_in_the_clear(&self) -> Result<Channel> {
        Ok(Endpoint::from_shared(format!("http://{}", self.certificates))?.connect().await?)
    }

    /// Takes principals out of the file, and has the server read it again.
    pub(crate) fn revoke(&self, names: &[&str]) -> Result<()> {
        std::fs::write(self.file(), principals(names))?;
        self.daemon.signal(rustix::process::Signal::HUP)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("principals.toml")
    }
}

/// The file of principals without those of these names.
fn principals(revoked: &[&str]) -> String {
    let mut text = String::new();
    for Token { name, token, rights } in TOKENS {
        if !revoked.contains(&name) {
            let hash = testkit::Digest::of(testkit::DigestFunction::Sha256, token.as_bytes()).hex();
            text += &format!("[[token]]\nname = '{name}'\nsha256 = '{hash}'\n{rights}\n");
        }
    }
    for name in ["builder", "leaver"] {
        if !revoked.contains(&name) {
            text += &format!(
                "[[certificate]]\nname = 'certified-{name}'\ncommon_name = '{name}'\nrights = ['client']\n"
            );
        }
    }
    text
}

/// One of the places that the server says it serves on, from 0.
async fn place(daemon: &Daemon, index: usize) -> Result<SocketAddr> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = daemon.log();
        let mut places = log.lines().filter_map(|line| line.split_once("serving on "));
        if let Some((_, place)) = places.nth(index) {
            // A place with TLS says so behind its address.
            let address = place.split_whitespace().next().unwrap_or_default();
            return address.parse().context("an address");
        }
        ensure!(Instant::now() < deadline, "the server names fewer places:\n{log}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Calls a method with an encoded message, of which the answer is not looked at.
pub(crate) async fn call(
    channel: &Channel,
    method: &'static str,
    message: impl prost::Message + 'static,
    authorization: Option<&str>,
) -> Result<(), Status> {
    let mut request = tonic::Request::new(message);
    if let Some(value) = authorization {
        let value = MetadataValue::try_from(value.to_owned());
        let value = value.map_err(|_| Status::internal("not a header"))?;
        request.metadata_mut().insert("authorization", value);
    }
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(method);
    client.unary(request, path, ProstCodec::<_, ()>::default()).await.map(drop)
}

/// The header of a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The codes that a principal gets for GetOperation and for CancelOperation.
pub(crate) async fn look_and_cancel(channel: &Channel, token: &str, name: &str) -> [Code; 2] {
    let header: MetadataValue<_> = bearer(token).parse().expect("a token is ASCII");
    let mut operations = OperationsClient::new(channel.clone());
    let mut look = tonic::Request::new(GetOperationRequest { name: name.to_owned() });
    look.metadata_mut().insert("authorization", header.clone());
    let mut cancel = tonic::Request::new(CancelOperationRequest { name: name.to_owned() });
    cancel.metadata_mut().insert("authorization", header);
    let code = |status: Option<Status>| status.map_or(Code::Ok, |status| status.code());
    let look = code(operations.get_operation(look).await.err());
    [look, code(operations.cancel_operation(cancel).await.err())]
}
