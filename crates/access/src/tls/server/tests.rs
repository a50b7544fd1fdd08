use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use testkit::pki::{Authority, Identity, Request};
use testkit::tls::TlsClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const NAME: &str = "server.example";

/// A server's files, and the CAs of both sides.
struct World {
    directory: tempfile::TempDir,
    authority: Authority,
    client_authority: Authority,
}

impl World {
    fn new() -> Self {
        let world = Self {
            directory: tempfile::tempdir().unwrap(),
            authority: Authority::new("servers").unwrap(),
            client_authority: Authority::new("clients").unwrap(),
        };
        world.client_authority.write(&world.path("ca")).unwrap();
        world.install(&world.server(NAME));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn server(&self, name: &str) -> Identity {
        self.authority.sign(Request::server(&[name]).unwrap()).unwrap()
    }

    fn client(&self, name: &str) -> Identity {
        self.client_authority.sign(Request::client(name).unwrap()).unwrap()
    }

    fn install(&self, identity: &Identity) {
        identity.write(self.directory.path(), "server").unwrap();
    }

    fn files(&self, is_mutual: bool) -> TlsFiles {
        TlsFiles {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: is_mutual.then(|| self.path("ca")),
        }
    }

    fn open(&self) -> Result<Tls, TlsError> {
        Tls::open(self.files(true))
    }

    fn trusting(&self, identity: Option<&Identity>) -> TlsClient {
        TlsClient::new(&self.authority, identity).unwrap()
    }
}

/// The outcome of one handshake: what the server says of the client, and whether the client can talk.
async fn meet(
    tls: &Tls,
    client: &TlsClient,
    name: &str,
) -> (Result<Option<CertificateNames>, String>, anyhow::Result<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, names) =
            tls.accept(stream).await.map_err(|error| chain::Chain(&error).to_string())?;
        stream.write_all(b"hello").await.map_err(|error| error.to_string())?;
        stream.shutdown().await.map_err(|error| error.to_string())?;
        Ok(names)
    };
    let client = async {
        let mut text = String::new();
        client.stream(address, name).await?.read_to_string(&mut text).await?;
        anyhow::ensure!(text == "hello", "the server says {text:?}");
        Ok(())
    };
    tokio::join!(server, client)
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let world = World::new();
    let tls = world.open().unwrap();
    let identity = world.client("ci");
    let (names, talk) = meet(&tls, &world.trusting(Some(&identity)), NAME).await;
    talk.unwrap();
    assert_eq!(names.unwrap().unwrap().shown(), "ci");
    // Its names by kind, the most exact one first.
    let request = Request::client("ci").unwrap().uri("spiffe://example/ci").unwrap();
    let identity = world.client_authority.sign(request).unwrap();
    let (names, _) = meet(&tls, &world.trusting(Some(&identity)), NAME).await;
    assert_eq!(names.unwrap().unwrap().shown(), "spiffe://example/ci");
}

#[tokio::test]
async fn without_a_client_ca_nobody_needs_a_certificate() {
    let world = World::new();
    let tls = Tls::open(world.files(false)).unwrap();
    let (names, talk) = meet(&tls, &world.trusting(None), NAME).await;
    talk.unwrap();
    assert_eq!(names, Ok(None));
    // One that is shown was not asked for.
    let identity = world.client("ci");
    let (names, talk) = meet(&tls, &world.trusting(Some(&identity)), NAME).await;
    talk.unwrap();
    assert_eq!(names, Ok(None));
}

#[tokio::test]
async fn a_wrong_certificate_of_a_client_is_refused() {
    let world = World::new();
    let tls = world.open().unwrap();
    let check = async |identity: Option<Identity>, expected: &str| {
        let (names, talk) = meet(&tls, &world.trusting(identity.as_ref()), NAME).await;
        assert!(talk.is_err(), "{expected}");
        let error = names.unwrap_err();
        assert!(error.to_lowercase().contains(expected), "{expected}: {error}");
    };
    let sign = |request: Request| Some(world.client_authority.sign(request).unwrap());
    check(None, "no certificates").await;
    check(sign(Request::client("ci").unwrap().expired()), "expired").await;
    check(sign(Request::client("ci").unwrap().not_yet()), "not valid yet").await;
    // The CA of servers is not that of clients, and one of the same name is not the same.
    let of_servers = world.authority.sign(Request::client("ci").unwrap()).unwrap();
    check(Some(of_servers), "unknownissuer").await;
    let impostor = Authority::new("clients").unwrap();
    check(Some(impostor.sign(Request::client("ci").unwrap()).unwrap()), "").await;
    // A server's certificate is not for clients.
    check(sign(Request::server(&["ci"]).unwrap()), "").await;
}

#[tokio::test]
async fn a_client_refuses_a_server_with_another_name_or_ca() {
    let world = World::new();
    let tls = Tls::open(world.files(false)).unwrap();
    let (_, talk) = meet(&tls, &world.trusting(None), "other.example").await;
    assert!(format!("{:#}", talk.unwrap_err()).contains("not valid for name"));
    let stranger = TlsClient::new(&world.client_authority, None).unwrap();
    let (_, talk) = meet(&tls, &stranger, NAME).await;
    assert!(format!("{:#}", talk.unwrap_err()).contains("UnknownIssuer"));
}

#[tokio::test]
async fn only_http2_is_spoken() {
    let world = World::new();
    let tls = Tls::open(world.files(false)).unwrap();
    let (names, talk) = meet(&tls, &world.trusting(None).offering(&["http/1.1"]), NAME).await;
    assert!(talk.is_err());
    let error = names.unwrap_err();
    assert!(error.contains("protocol"), "{error}");
}

#[tokio::test]
async fn a_client_without_tls_is_refused() {
    let world = World::new();
    let tls = world.open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let error = tls.accept(stream).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Refused(_)), "{error}");
}

#[tokio::test]
async fn new_certificates_are_used_and_wrong_ones_are_not() {
    let world = World::new();
    let tls = Tls::open(world.files(false)).unwrap();
    let client = world.trusting(None);
    let talks = async |name| meet(&tls, &client, name).await.1.is_ok();
    world.install(&world.server("new.example"));
    let new = tls.read_again().unwrap();
    assert!(talks(NAME).await && !talks("new.example").await, "no effect yet");
    tls.replace(new);
    assert!(talks("new.example").await && !talks(NAME).await);

    let refused = |expected: &str| {
        let error = tls.read_again().map(|_| ()).unwrap_err();
        let text = chain::Chain(&error).to_string();
        assert!(text.contains(expected), "{expected}: {text}");
    };
    world.install(&world.authority.sign(Request::server(&[NAME]).unwrap().expired()).unwrap());
    refused("server.pem: the certificate has expired");
    world.install(&world.authority.sign(Request::server(&[NAME]).unwrap().not_yet()).unwrap());
    refused("server.pem: the certificate is not valid yet");
    std::fs::write(world.path("server.pem"), world.server(NAME).certificate_pem()).unwrap();
    refused("using the certificate");
    world.install(&world.server(NAME));
    std::fs::write(world.path("server.pem"), "nonsense").unwrap();
    refused("server.pem: no certificate in PEM");
    world.install(&world.server(NAME));
    std::fs::write(world.path("server.key"), "nonsense").unwrap();
    refused("server.key: no private key in PEM");
    std::fs::remove_file(world.path("server.key")).unwrap();
    refused("server.key: No such file");
    assert!(talks("new.example").await, "the old one goes on");
}

#[test]
fn files_are_checked_at_the_start() {
    let world = World::new();
    let mode = |name: &str, mode| {
        std::fs::set_permissions(world.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    assert!(world.open().is_ok());
    mode("server.key", 0o644);
    assert!(matches!(world.open(), Err(TlsError::File(TrustedFileError::Exposed(_)))));
    mode("server.key", 0o640);
    mode("ca", 0o666);
    assert!(matches!(world.open(), Err(TlsError::File(TrustedFileError::Writable(_)))));
    mode("ca", 0o644);
    std::fs::write(world.path("ca"), "").unwrap();
    assert!(matches!(world.open(), Err(TlsError::Content { .. })));
    let key = std::fs::read_to_string(world.path("server.key")).unwrap();
    let shown = format!("{:?}", Tls::open(world.files(false)).unwrap());
    assert!(!shown.contains(key.lines().nth(1).unwrap()), "{shown}");
    assert!(shown.contains("server.key"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stops_halfway_ends() {
    let world = World::new();
    let tls = world.open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    // The header of a record that never comes.
    client.write_all(&[22, 3, 1, 1, 0, 1]).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    assert!(matches!(tls.accept(stream).await, Err(HandshakeError::Timeout)));
}
