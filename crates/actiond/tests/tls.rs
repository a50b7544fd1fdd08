//! TLS and client certificates, with the real daemon.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use testkit::pki::{Authority, Identity, Request};
use testkit::tls::TlsClient;
use testkit::wait::PATIENCE;
use testkit::{
    Client, Daemon, DaemonBuilder, DigestFunction, Kit, Outcome, eventually_async, proto,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    an_action_runs_over_tls,
    a_client_certificate_has_rights,
    wrong_certificates_are_refused,
    a_signal_replaces_certificates_but_not_by_wrong_ones,
    a_port_without_tls_stays_beside,
    flags_that_do_not_fit_are_refused,
    beyond_the_loopback_a_client_has_to_be_known,
    a_token_shows_nowhere,
    verbs_ask_over_tls,
}

/// The name in the server's certificate.
const NAME: &str = "127.0.0.1";

/// Certificates of a server and its clients.
struct World {
    directory: tempfile::TempDir,
    servers: Authority,
    clients: Authority,
}

impl World {
    fn new() -> anyhow::Result<Self> {
        let world = Self {
            directory: tempfile::tempdir()?,
            servers: Authority::new("servers")?,
            clients: Authority::new("clients")?,
        };
        world.clients.write(&world.path("clients.pem"))?;
        world.install(world.servers.sign(Request::server(&[NAME])?)?)?;
        Ok(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes it the server's identity.
    fn install(&self, identity: Identity) -> Outcome {
        identity.write(self.directory.path(), "server").map(drop)
    }

    fn client(&self, name: &str) -> anyhow::Result<TlsClient> {
        self.showing(&self.clients.sign(Request::client(name)?)?)
    }

    fn showing(&self, identity: &Identity) -> anyhow::Result<TlsClient> {
        TlsClient::new(&self.servers, Some(identity))
    }

    fn nobody(&self) -> anyhow::Result<TlsClient> {
        TlsClient::new(&self.servers, None)
    }

    fn flag(&self, name: &str, file: &str) -> String {
        format!("--{name}={}", self.path(file).display())
    }

    /// A daemon with TLS at its second place; the first is the kit's own.
    fn daemon(&self, kit: &Kit) -> DaemonBuilder {
        let daemon = kit.daemon().host_rootfs().without_tls().flag("--listen=127.0.0.1:0");
        let daemon = daemon.flag(self.flag("tls-cert", "server.pem"));
        daemon.flag(self.flag("tls-key", "server.key"))
    }

    /// The same, asking for certificates of clients.
    fn mutual_daemon(&self, kit: &Kit) -> DaemonBuilder {
        self.daemon(kit).flag(self.flag("tls-client-ca", "clients.pem"))
    }
}

/// The second place at which the daemon says it serves.
async fn tls_address(daemon: &Daemon) -> anyhow::Result<SocketAddr> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = daemon.log();
        let mut places = log.lines().filter_map(|line| line.split_once("serving on "));
        if let Some((_, place)) = places.nth(1) {
            let (address, protection) = place.split_once(" with ").context("a place with TLS")?;
            ensure!(protection.starts_with("TLS"), "{place}");
            return Ok(address.parse()?);
        }
        ensure!(Instant::now() < deadline, "the daemon names one place only:\n{log}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Asks for a blob that is not there.
async fn read(channel: Channel) -> Result<(), Status> {
    let message = proto::FindMissingBlobsRequest {
        digest_function: DigestFunction::Sha256.to_proto(),
        ..proto::FindMissingBlobsRequest::default()
    };
    let mut client =
        proto::content_addressable_storage_client::ContentAddressableStorageClient::new(channel);
    client.find_missing_blobs(message).await.map(drop)
}

/// Uploads nothing.
async fn write(channel: Channel) -> Result<(), Status> {
    let message = proto::BatchUpdateBlobsRequest {
        digest_function: DigestFunction::Sha256.to_proto(),
        ..proto::BatchUpdateBlobsRequest::default()
    };
    let mut client =
        proto::content_addressable_storage_client::ContentAddressableStorageClient::new(channel);
    client.batch_update_blobs(message).await.map(drop)
}

fn code(outcome: Result<(), Status>) -> Code {
    outcome.err().map_or(Code::Ok, |status| status.code())
}

/// Whether the server answers that client at all.
async fn is_let_in(client: &TlsClient, address: SocketAddr) -> bool {
    match client.channel(address, NAME).await {
        Ok(channel) => read(channel).await.is_ok(),
        Err(_) => false,
    }
}

async fn an_action_runs_over_tls(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM has no TLS")?;
    let world = World::new()?;
    let daemon = world.daemon(&kit).start().await?;
    // Callers without credentials are clients here: there are no principals.
    let address = tls_address(&daemon).await?;
    let channel = world.nobody()?.channel(address, NAME).await?;
    let client = Client::on(channel);
    let run = client.action("cp in out").input("in", "hi").output("out").run().await?;
    assert_eq!(run.file("out").await?, "hi");
    Ok(())
}

async fn a_client_certificate_has_rights(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM has no TLS")?;
    let world = World::new()?;
    let principals = "[[certificate]]\nname = 'reader'\ncommon_name = 'ci'\nrights = ['read']\n\
                      [[certificate]]\nname = 'writer'\nuri = 'spiffe://example/w'\n\
                      rights = ['client']\n";
    std::fs::write(world.path("principals.toml"), principals)?;
    let daemon = world.mutual_daemon(&kit).flag(world.flag("token-file", "principals.toml"));
    let daemon = daemon.start().await?;
    let address = tls_address(&daemon).await?;
    let check = async |client: TlsClient, can_read: Code, can_write: Code| -> Outcome {
        let channel = client.channel(address, NAME).await?;
        assert_eq!(code(read(channel.clone()).await), can_read);
        assert_eq!(code(write(channel).await), can_write);
        Ok(())
    };
    check(world.client("ci")?, Code::Ok, Code::PermissionDenied).await?;
    let writer = Request::client("anything")?.uri("spiffe://example/w")?;
    check(world.showing(&world.clients.sign(writer)?)?, Code::Ok, Code::Ok).await?;
    // One of the CA that the list does not have.
    check(world.client("cI")?, Code::Unauthenticated, Code::Unauthenticated).await?;
    // The list changes while clients are connected.
    let channel = world.client("ci")?.channel(address, NAME).await?;
    std::fs::write(world.path("principals.toml"), principals.replace("'ci'", "'other'"))?;
    daemon.signal(Signal::HUP)?;
    eventually_async("the reader is unknown", async || {
        Ok(code(read(channel.clone()).await) == Code::Unauthenticated)
    })
    .await
}

async fn wrong_certificates_are_refused(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM has no TLS")?;
    let world = World::new()?;
    let daemon = world.mutual_daemon(&kit).start().await?;
    let address = tls_address(&daemon).await?;
    assert!(is_let_in(&world.client("ci")?, address).await);
    let request = || Request::client("ci");
    let wrong = [
        ("no certificate", world.nobody()?),
        ("expired", world.showing(&world.clients.sign(request()?.expired())?)?),
        ("not yet valid", world.showing(&world.clients.sign(request()?.not_yet())?)?),
        ("the servers' CA", world.showing(&world.servers.sign(request()?)?)?),
        ("a CA of the same name", world.showing(&Authority::new("clients")?.sign(request()?)?)?),
        ("a server's", world.showing(&world.clients.sign(Request::server(&["ci"])?)?)?),
    ];
    for (what, client) in wrong {
        assert!(!is_let_in(&client, address).await, "{what}");
    }
    // The port does not serve those without TLS either.
    let plain = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?;
    let plain = match plain.connect().await {
        Ok(channel) => code(read(channel).await),
        Err(_) => Code::Unavailable,
    };
    assert_ne!(plain, Code::Ok);
    assert!(is_let_in(&world.client("ci")?, address).await);
    Ok(())
}

async fn a_signal_replaces_certificates_but_not_by_wrong_ones(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM has no TLS")?;
    let world = World::new()?;
    let daemon = world.daemon(&kit).start().await?;
    let address = tls_address(&daemon).await?;
    let old = world.nobody()?;
    let connected = old.channel(address, NAME).await?;
    // An expired one, and one whose key is another's, change nothing.
    world.install(world.servers.sign(Request::server(&[NAME])?.expired())?)?;
    reload(&daemon, "server.pem: the certificate has expired").await?;
    let fine = world.servers.sign(Request::server(&[NAME])?)?;
    std::fs::write(world.path("server.pem"), fine.certificate_pem())?;
    reload(&daemon, "using the certificate").await?;
    assert!(is_let_in(&old, address).await);
    // A new CA: its clients come in, and those of the old one do not. Clients that are in stay.
    let new_servers = Authority::new("new")?;
    world.install(new_servers.sign(Request::server(&[NAME])?)?)?;
    reload(&daemon, "the configuration was read again").await?;
    assert!(is_let_in(&TlsClient::new(&new_servers, None)?, address).await);
    assert!(!is_let_in(&old, address).await);
    assert_eq!(code(read(connected).await), Code::Ok);
    Ok(())
}

/// Sends SIGHUP, and waits until the log has `expected`, once more than it had.
async fn reload(daemon: &Daemon, expected: &str) -> Outcome {
    let count = || daemon.log().matches(expected).count();
    let before = count();
    daemon.signal(Signal::HUP)?;
    eventually_async(expected, async || Ok(count() > before)).await
}

async fn a_port_without_tls_stays_beside(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM has no TLS")?;
    let world = World::new()?;
    let daemon = world.mutual_daemon(&kit).start().await?;
    assert_eq!(code(read(daemon.client().channel()).await), Code::Ok);
    Ok(())
}

/// Starts the daemon with these flags alone, and returns what it says at its end.
fn refusal(kit: &Kit, flags: &[String]) -> anyhow::Result<String> {
    let root = tempfile::tempdir()?;
    let output = std::process::Command::new(kit.binary())
        .args(["serve", "--http=off", "--root"])
        .arg(root.path())
        .args(flags)
        .env("ACTIOND_CONFIG", "/dev/null")
        .output()?;
    ensure!(!output.status.success(), "{flags:?} started");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn flags_that_do_not_fit_are_refused(kit: Kit) -> Outcome {
    let world = World::new()?;
    let check = |flags: Vec<String>, expected: &str| -> Outcome {
        let said = refusal(&kit, &flags)?;
        ensure!(said.contains(expected), "{flags:?}: {said}");
        Ok(())
    };
    let (cert, key) = (world.flag("tls-cert", "server.pem"), world.flag("tls-key", "server.key"));
    check(vec![cert.clone()], "--tls-cert needs --tls-key")?;
    check(vec![key.clone()], "--tls-key needs --tls-cert")?;
    check(vec![world.flag("tls-client-ca", "clients.pem")], "--tls-client-ca needs")?;
    check(vec![cert.clone(), world.flag("tls-key", "nowhere")], "nowhere")?;
    expose(&world.path("server.key"))?;
    check(vec![cert, key], "every user can read")
}

fn expose(path: &Path) -> Outcome {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?)
}

async fn beyond_the_loopback_a_client_has_to_be_known(kit: Kit) -> Outcome {
    let world = World::new()?;
    let beyond = || "--listen=0.0.0.0:0".to_owned();
    let tls = || vec![world.flag("tls-cert", "server.pem"), world.flag("tls-key", "server.key")];
    let check = |flags: Vec<String>| -> Outcome {
        let said = refusal(&kit, &[flags, vec![beyond()]].concat())?;
        ensure!(said.contains("give --tls-cert"), "{said}");
        Ok(())
    };
    check(Vec::new())?;
    // The server is known, the clients are not.
    check(tls())?;
    std::fs::write(world.path("principals.toml"), "")?;
    check(vec![world.flag("token-file", "principals.toml")])?;
    // TLS that one port leaves out.
    let flags = [tls(), vec!["--listen=0.0.0.0:0?tls=off".to_owned()]].concat();
    let said = refusal(&kit, &flags)?;
    ensure!(said.contains("give --tls-cert"), "{said}");
    Ok(())
}

async fn a_token_shows_nowhere(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM has no principals")?;
    let world = World::new()?;
    // `printf %s secret | sha256sum`
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let principals = format!("[[token]]\nname = 'ci'\nsha256 = '{hash}'\nrights = ['read']\n");
    std::fs::write(world.path("principals.toml"), principals)?;
    let daemon = world.daemon(&kit).flag(world.flag("token-file", "principals.toml"));
    let daemon = daemon.flag("--log=trace").start().await?;
    let address = tls_address(&daemon).await?;
    let channel = world.nobody()?.channel(address, NAME).await?;
    for (token, expected) in [("secret", Code::Ok), ("hunter2", Code::Unauthenticated)] {
        let mut request = tonic::Request::new(proto::FindMissingBlobsRequest {
            digest_function: DigestFunction::Sha256.to_proto(),
            ..proto::FindMissingBlobsRequest::default()
        });
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        let mut client =
            proto::content_addressable_storage_client::ContentAddressableStorageClient::new(
                channel.clone(),
            );
        assert_eq!(code(client.find_missing_blobs(request).await.map(drop)), expected);
    }
    let key = std::fs::read_to_string(world.path("server.key"))?;
    let line_of_key = key.lines().nth(1).context("a key has lines")?;
    let mut daemon = daemon;
    daemon.terminate()?;
    daemon.wait()?;
    let log = daemon.log();
    ensure!(log.contains("TRACE"), "the log is not whole:\n{log}");
    for secret in ["Bearer", "hunter2", hash, line_of_key] {
        ensure!(!log.contains(secret), "the log has {secret}");
    }
    Ok(())
}

/// Verbs that ask a server with TLS, client certificates and tokens, as people run them.
async fn verbs_ask_over_tls(kit: Kit) -> Outcome {
    kit.only_on_the_host("the server in a VM has no TLS")?;
    let world = World::new()?;
    // `printf %s secret | sha256sum`
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let principals = format!(
        "[[certificate]]\nname = 'operator'\ncommon_name = 'operator'\nrights = ['all']\n\
         [[certificate]]\nname = 'reader'\ncommon_name = 'reader'\nrights = ['read']\n\
         [[token]]\nname = 'token'\nsha256 = '{hash}'\nrights = ['all']\n"
    );
    std::fs::write(world.path("principals.toml"), principals)?;
    let daemon = world.mutual_daemon(&kit).flag(world.flag("token-file", "principals.toml"));
    let daemon = daemon.start().await?;
    let server = format!("--server=grpcs://{}", tls_address(&daemon).await?);
    world.servers.write(&world.path("servers.pem"))?;
    Authority::new("others")?.write(&world.path("others.pem"))?;
    for name in ["operator", "reader", "stranger"] {
        world.clients.sign(Request::client(name)?)?.write(world.directory.path(), name)?;
    }
    let expired = world.clients.sign(Request::client("operator")?.expired())?;
    expired.write(world.directory.path(), "expired")?;

    let ca = world.flag("tls-ca", "servers.pem");
    let ask = |verb: &[&str], token: Option<&str>, flags: &[&str]| -> anyhow::Result<_> {
        let mut command = std::process::Command::new(kit.binary());
        command.args(verb).args(flags).env_remove("ACTIOND_TOKEN");
        command.envs(token.map(|token| ("ACTIOND_TOKEN", token)));
        Ok(command.output()?)
    };
    let shows = |name: &str| {
        [
            world.flag("tls-cert", &format!("{name}.pem")),
            world.flag("tls-key", &format!("{name}.key")),
        ]
    };
    let verbs: [&[&str]; 3] = [&["store", "du", "--json"], &["ps", "--json"], &["stats", "--json"]];
    for verb in verbs {
        let [cert, key] = shows("operator");
        let output = ask(verb, None, &[&server, &ca, &cert, &key])?;
        ensure!(output.status.success(), "{verb:?}: {output:?}");
        // The certificate lets a client in, and the token has the rights.
        let [cert, key] = shows("stranger");
        let output = ask(verb, Some("secret"), &[&server, &ca, &cert, &key])?;
        ensure!(output.status.success(), "{verb:?} with a token: {output:?}");
    }
    let fails = |token: Option<&str>, flags: &[&str], part: &str| -> Outcome {
        for verb in verbs {
            let output = ask(verb, token, flags)?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(!output.status.success() && said.contains(part), "{verb:?} {flags:?}: {said}");
            ensure!(!said.contains("secret") && !said.contains("hunter2"), "{said}");
        }
        Ok(())
    };
    let [cert, key] = shows("operator");
    let others = world.flag("tls-ca", "others.pem");
    fails(None, &[&server, &others, &cert, &key], "invalid peer certificate")?;
    // The CAs of the system do not know the server's.
    fails(None, &[&server, &cert, &key], "connecting to the server")?;
    fails(None, &[&server, &ca], "ertificate")?;
    let [expired, key] = shows("expired");
    fails(None, &[&server, &ca, &expired, &key], "ertificate")?;
    let [stranger, key] = shows("stranger");
    fails(None, &[&server, &ca, &stranger, &key], "the server refuses")?;
    fails(Some("hunter2"), &[&server, &ca, &stranger, &key], "the server refuses")?;
    let [reader, key] = shows("reader");
    let output = ask(&["store", "du"], None, &[&server, &ca, &reader, &key])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("the right `admin`"), "{said}");
    // A client without TLS, and TLS at a port without it.
    let plain = server.replace("grpcs://", "grpc://");
    ensure!(
        !ask(&["ps"], None, &[&plain])?.status.success(),
        "a port with TLS took another client"
    );
    let address = daemon.address();
    let output = ask(&["ps"], None, &[&format!("--server=grpcs://{address}"), &ca])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("connecting to the server"), "{said}");
    Ok(())
}
