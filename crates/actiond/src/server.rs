//! A running server, as the verbs that ask it see it.

use std::fmt;
use std::path::Path;

use access::Endpoint;
use anyhow::Context as _;
use tokio::runtime::Runtime;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{self, Channel};
use tonic::{Code, Request, Status};

/// The name of the socket in the root directory, where a server listens for verbs.
pub(crate) const OPERATORS_SOCKET: &str = "socket";

/// The variable with the token.
const TOKEN: &str = "ACTIOND_TOKEN";

/// A connection whose calls have the caller's token.
pub(crate) type Authorized = InterceptedService<Channel, Token>;

/// A server, and what waits for its answers.
pub(crate) struct Server {
    runtime: Runtime,
    channel: Authorized,
}

/// Adds the caller's token to requests, if it has one.
#[derive(Clone)]
pub(crate) struct Token(Option<MetadataValue<Ascii>>);

impl Token {
    fn from_environment() -> anyhow::Result<Self> {
        let Some(token) = std::env::var_os(TOKEN) else { return Ok(Self(None)) };
        let header = token.to_str().and_then(|token| format!("Bearer {token}").parse().ok());
        Ok(Self(Some(header.with_context(|| format!("{TOKEN} has characters that no token has"))?)))
    }
}

/// Whether calls will have a token.
pub(crate) fn has_token() -> bool {
    std::env::var_os(TOKEN).is_some()
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Server {
    /// The server that has the store at `root`.
    ///
    /// # Errors
    /// When none has it.
    pub(crate) fn of_root(root: &Path) -> anyhow::Result<Self> {
        let root = std::path::absolute(root).context("finding the root directory")?;
        let endpoint = Endpoint::Unix(root.join(OPERATORS_SOCKET));
        Self::connect(&endpoint).with_context(|| {
            format!(
                "no server answers for the root directory {}; start one with `linux-actiond serve`, name \
                 its root with --root, or the endpoint where it listens with --server",
                root.display()
            )
        })
    }

    /// The server at that endpoint.
    ///
    /// # Errors
    /// When nothing listens there.
    pub(crate) fn connect(endpoint: &Endpoint) -> anyhow::Result<Self> {
        let uri = match endpoint {
            Endpoint::Tcp(address) => format!("http://{address}"),
            Endpoint::Unix(path) => {
                let path = path.to_str().context("the path of the socket is not UTF-8")?;
                format!("unix:{path}")
            }
        };
        let server = transport::Endpoint::from_shared(uri).context("naming the server")?;
        Self::connect_to(&server, endpoint)
    }

    /// A server with this name for people.
    ///
    /// # Errors
    /// When nothing listens there, or not with the certificate that it should have.
    pub(crate) fn connect_to(
        server: &transport::Endpoint,
        name: &impl fmt::Display,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the client")?;
        let connected = runtime.block_on(server.connect());
        let channel = connected.map_err(|error| {
            anyhow::anyhow!("connecting to the server at {name}: {}", distinct(&error))
        })?;
        let channel = InterceptedService::new(channel, Token::from_environment()?);
        Ok(Self { runtime, channel })
    }

    /// The connection, for calls.
    pub(crate) fn channel(&self) -> Authorized {
        self.channel.clone()
    }

    /// Waits for an answer.
    pub(crate) fn wait<T>(&self, answer: impl Future<Output = T>) -> T {
        self.runtime.block_on(answer)
    }
}

/// An error and its causes, without those that only repeat another: the client's layers all print the system's error.
fn distinct(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
        cause = error.source();
    }
    texts.join(": ")
}

/// The server's error as text for people; the call needs that right.
pub(crate) fn said(right: &'static str) -> impl Fn(Status) -> anyhow::Error {
    move |status| match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented => anyhow::anyhow!(
            "the server refuses: {}. It takes this from the right `{right}`: set {TOKEN}, show a \
             certificate with --tls-cert, or use the socket in its root directory as the user that it runs as",
            status.message()
        ),
        // A status that the server did not send. Under TLS 1.3 a server refuses a client's certificate after the
        // handshake, and what tells of it is that the connection ends.
        _ if std::error::Error::source(&status).is_some() => anyhow::anyhow!(
            "the connection to the server ended ({}); a server that knows its clients by certificates ends it where \
             --tls-cert is missing or names a certificate that has expired or is of another CA",
            status.message()
        ),
        _ => anyhow::anyhow!("the server said: {}", status.message()),
    }
}
