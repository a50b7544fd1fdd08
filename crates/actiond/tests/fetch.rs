//! `FetchBlob` of files that nobody pushed: from web servers, where `--allow-fetch` allows it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, bail, ensure};
use testkit::asset::fetch_client::FetchClient;
use testkit::asset::{FetchBlobRequest, FetchBlobResponse, Qualifier};
use testkit::google::protobuf::{Duration, Timestamp};
use testkit::pki::{Authority, Request};
use testkit::{
    Client, Daemon, DaemonBuilder, Digest, DigestFunction, Kit, Outcome, eventually_async,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::{Code, Status};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_file_is_fetched_once_and_then_found,
    without_the_flag_no_url_is_opened,
    a_host_that_is_not_named_is_not_asked,
    hosts_that_are_not_public_are_reached_under_no_name,
    only_what_has_the_checksum_is_stored,
    a_mirror_is_asked_when_the_first_host_fails,
    redirects_are_followed_to_allowed_hosts_only,
    headers_go_to_the_host_that_they_are_for_and_no_further,
    qualifiers_that_can_not_be_followed_are_refused,
    what_a_host_answers_is_told_by_its_code,
    a_host_that_falls_silent_ends_with_the_timeout,
    slow_fetches_leave_turns_to_other_hosts_and_clients,
    a_file_that_is_too_large_is_not_stored,
    a_fetch_needs_the_right_to_fill_the_store,
    older_content_is_fetched_anew,
    a_fetch_goes_on_when_its_client_leaves,
    https_needs_a_certificate_of_a_known_ca,
}

/// A web server of the test.
#[derive(Clone)]
struct Site(Arc<SiteState>);

struct SiteState {
    address: SocketAddr,
    pages: Mutex<HashMap<String, Page>>,
    /// The heads of all requests.
    requests: Mutex<Vec<String>>,
    /// Lets held answers go.
    release: Notify,
}

#[derive(Clone)]
enum Page {
    File(Vec<u8>),
    Status(u16),
    Redirect(String),
    /// Ends before its time.
    Truncated,
    /// Goes on for ever.
    Endless,
    /// Announces very much.
    Huge,
    /// Never answers.
    Silent,
    /// Goes on for ever, and takes its time.
    Slow,
    /// Answers when the test says so.
    Held(Vec<u8>),
}

impl Site {
    async fn start() -> anyhow::Result<Self> {
        Self::start_at("127.0.0.1", None).await
    }

    /// A site at that address of this machine.
    async fn start_at(host: &str, tls: Option<TlsAcceptor>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((host, 0)).await?;
        let site = Self(Arc::new(SiteState {
            address: listener.local_addr()?,
            pages: Mutex::default(),
            requests: Mutex::default(),
            release: Notify::new(),
        }));
        let serving = site.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (site, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => site.answer(stream).await,
                        Some(tls) => site.answer(tls.accept(stream).await?).await,
                    }
                });
            }
        });
        Ok(site)
    }

    fn page(&self, path: &str, page: Page) -> String {
        self.0.pages.lock().unwrap().insert(path.to_owned(), page);
        format!("http://{}{path}", self.0.address)
    }

    fn requests(&self) -> Vec<String> {
        self.0.requests.lock().unwrap().clone()
    }

    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> anyhow::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head)?;
        self.0.requests.lock().unwrap().push(head.clone());
        let path = head.split(' ').nth(1).context("a request has a path")?;
        let page = self.0.pages.lock().unwrap().get(path).cloned();
        let plain = |status: u16, more: &str, bytes: usize| {
            format!(
                "HTTP/1.1 {status} X\r\nConnection: close\r\n{more}Content-Length: {bytes}\r\n\r\n"
            )
        };
        match page {
            None => stream.write_all(plain(404, "", 0).as_bytes()).await?,
            Some(Page::Status(status)) => stream.write_all(plain(status, "", 0).as_bytes()).await?,
            Some(Page::Redirect(to)) => {
                let location = format!("Location: {to}\r\n");
                stream.write_all(plain(302, &location, 0).as_bytes()).await?;
            }
            Some(Page::File(content)) => {
                stream.write_all(plain(200, "", content.len()).as_bytes()).await?;
                stream.write_all(&content).await?;
            }
            Some(Page::Held(content)) => {
                self.0.release.notified().await;
                stream.write_all(plain(200, "", content.len()).as_bytes()).await?;
                stream.write_all(&content).await?;
            }
            Some(Page::Truncated) => {
                stream.write_all(plain(200, "", 100).as_bytes()).await?;
                stream.write_all(&[b'x'; 50]).await?;
            }
            Some(Page::Huge) => {
                stream.write_all(plain(200, "", 1 << 40).as_bytes()).await?;
            }
            Some(Page::Endless) => {
                stream.write_all(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n").await?;
                let piece = vec![b'x'; 1 << 20];
                while stream.write_all(&piece).await.is_ok() {}
            }
            Some(Page::Silent) => std::future::pending().await,
            Some(Page::Slow) => {
                stream.write_all(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n").await?;
                let piece = [b'x'; 64 << 10];
                while stream.write_all(&piece).await.is_ok() {
                    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                }
            }
        }
        stream.shutdown().await?;
        Ok(())
    }
}

/// A daemon that fetches from these hosts.
async fn fetching(kit: &Kit, hosts: &str) -> anyhow::Result<Daemon> {
    builder(kit, hosts)?.start().await
}

fn builder(kit: &Kit, hosts: &str) -> anyhow::Result<DaemonBuilder> {
    kit.only_on_the_host("a guest has no network, and opens no URL")?;
    Ok(kit.daemon().flag(format!("--allow-fetch={hosts}")))
}

fn request(client: &Client, uris: &[&str], qualifiers: &[(&str, &str)]) -> FetchBlobRequest {
    let qualifier =
        |&(name, value): &(&str, &str)| Qualifier { name: name.into(), value: value.into() };
    FetchBlobRequest {
        instance_name: client.instance().to_owned(),
        uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
        qualifiers: qualifiers.iter().map(qualifier).collect(),
        digest_function: client.function().to_proto(),
        ..FetchBlobRequest::default()
    }
}

async fn call(client: &Client, request: FetchBlobRequest) -> Result<FetchBlobResponse, Status> {
    let answer = FetchClient::new(client.channel()).fetch_blob(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn fetch(client: &Client, uri: &str) -> Result<FetchBlobResponse, Status> {
    call(client, request(client, &[uri], &[])).await
}

/// The code and the text of an answer.
fn told(answer: &FetchBlobResponse) -> (Code, &str) {
    let status = answer.status.as_ref().expect("an answer has a status");
    (Code::from(status.code), &status.message)
}

/// Checks that the answer is this content, and that the client can read it.
async fn expect(client: &Client, answer: &FetchBlobResponse, content: &[u8]) -> anyhow::Result<()> {
    ensure!(told(answer).0 == Code::Ok, "{answer:?}");
    let digest = client.digest(content);
    ensure!(answer.blob_digest == Some(digest.to_proto()), "{answer:?}");
    ensure!(answer.digest_function == client.function().to_proto(), "{answer:?}");
    ensure!(client.get(&digest).await? == content, "other bytes");
    Ok(())
}

/// A checksum as clients write it.
fn sri(content: &[u8]) -> String {
    use base64::Engine as _;
    let hex = Digest::of(DigestFunction::Sha256, content).hex();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    let hash: Vec<u8> = (0..64).step_by(2).map(byte).collect();
    format!("sha256-{}", base64::engine::general_purpose::STANDARD.encode(hash))
}

async fn a_file_is_fetched_once_and_then_found(kit: Kit) -> Outcome {
    let site = Site::start().await?;
    // Larger than a piece on its way to the disk.
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let uri = site.page("/file", Page::File(content.clone()));
    let daemon = fetching(&kit, &site.0.address.to_string()).await?;
    let client = daemon.client();
    for _ in 0..2 {
        let answer = fetch(&client, &uri).await?;
        ensure!(answer.uri == uri, "{answer:?}");
        expect(&client, &answer, &content).await?;
    }
    ensure!(site.requests().len() == 1, "{:?}", site.requests());
    ensure!(site.requests()[0].contains("user-agent: actiond/"), "{:?}", site.requests());
    // Other names are other content.
    let other = client.with_function(DigestFunction::Blake3);
    expect(&other, &fetch(&other, &uri).await?, &content).await?;
    let other = client.with_instance("other");
    expect(&other, &fetch(&other, &uri).await?, &content).await?;
    ensure!(site.requests().len() == 3, "{:?}", site.requests());
    // A client that names no function gets SHA-256.
    let uri = site.page("/second", Page::File(b"second".to_vec()));
    let unset = FetchBlobRequest { digest_function: 0, ..request(&client, &[&uri], &[]) };
    expect(&client, &call(&client, unset).await?, b"second").await?;
    Ok(())
}

async fn without_the_flag_no_url_is_opened(kit: Kit) -> Outcome {
    let site = Site::start().await?;
    let uri = site.page("/file", Page::File(b"content".to_vec()));
    let daemon = kit.daemon().start().await?;
    let answer = fetch(&daemon.client(), &uri).await?;
    let (code, text) = told(&answer);
    ensure!(code == Code::NotFound && text.contains("--allow-fetch"), "{answer:?}");
    ensure!(site.requests().is_empty(), "{:?}", site.requests());
    Ok(())
}

async fn a_host_that_is_not_named_is_not_asked(kit: Kit) -> Outcome {
    let (site, other) = (Site::start().await?, Site::start().await?);
    let daemon = fetching(&kit, &site.0.address.to_string()).await?;
    let client = daemon.client();
    // The same host, but another port.
    let uri = other.page("/file", Page::File(b"content".to_vec()));
    let answer = fetch(&client, &uri).await?;
    let (code, text) = told(&answer);
    ensure!(code == Code::PermissionDenied && text.contains("--allow-fetch"), "{answer:?}");
    ensure!(answer.uri == uri, "{answer:?}");
    // Other schemes are names, as without the flag.
    for uri in ["file:///etc/passwd", "ftp://127.0.0.1/file", "urn:a", "gopher://127.0.0.1/"] {
        let answer = fetch(&client, uri).await?;
        ensure!(told(&answer).0 == Code::NotFound, "{uri}: {answer:?}");
    }
    ensure!(other.requests().is_empty(), "{:?}", other.requests());
    Ok(())
}

async fn hosts_that_are_not_public_are_reached_under_no_name(kit: Kit) -> Outcome {
    let site = Site::start().await?;
    site.page("/", Page::File(b"secret".to_vec()));
    let daemon = fetching(&kit, "public").await?;
    let client = daemon.client();
    let port = site.0.address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "0x7f000001",
        "2130706433",
        "0177.1",
        "127.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "a@127.0.0.1",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "[fd00::1]",
        "[fe80::1]",
    ] {
        let answer = fetch(&client, &format!("http://{host}:{port}/")).await?;
        let (code, text) = told(&answer);
        ensure!(code == Code::PermissionDenied, "{host}: {answer:?}");
        ensure!(text.contains("on the internet"), "{host}: {text}");
    }
    ensure!(site.requests().is_empty(), "{:?}", site.requests());
    Ok(())
}

async fn only_what_has_the_checksum_is_stored(kit: Kit) -> Outcome {
    let site = Site::start().await?;
    let uri = site.page("/file", Page::File(b"another content".to_vec()));
    let daemon = fetching(&kit, "127.0.0.1").await?;
    let client = daemon.client();
    let wanted = request(&client, &[&uri], &[("checksum.sri", &sri(b"content"))]);
    let answer = call(&client, wanted.clone()).await?;
    let (code, text) = told(&answer);
    let found = client.digest("another content");
    ensure!(code == Code::Aborted && text.contains(&found.hex()), "{answer:?}");
    ensure!(client.missing(&[found]).await? == [found], "it was stored");
    // It is asked for again, and then right.
    site.page("/file", Page::File(b"content".to_vec()));
    expect(&client, &call(&client, wanted).await?, b"content").await?;
    Ok(())
}

async fn a_mirror_is_asked_when_the_first_host_fails(kit: Kit) -> Outcome {
    let site = Site::start().await?;
    let right = sri(b"content");
    let uris = [
        site.page("/gone", Page::Status(404)),
        site.page("/broken", Page::Status(500)),
        site.page("/other", Page::File(b"another content".to_vec())),
        "urn:no-url".to_owned(),
        site.page("/file", Page::File(b"content".to_vec())),
        site.page("/unused", Page::File(b"content".to_vec())),
    ];
    let uris: Vec<&str> = uris.iter().map(String::as_str).collect();
    let daemon = fetching(&kit, "127.0.0.1").await?;
    let client = daemon.client();
    for _ in 0..2 {
        let answer = call(&client, request(&client, &uris, &[("checksum.sri", &right)])).await?;
        ensure!(answer.uri == uris[4], "{answer:?}");
        expect(&client, &answer, b"content").await?;
    }
    ensure!(site.requests().len() == 4, "{:?}", site.requests());
    Ok(())
}

async fn redirects_are_followed_to_allowed_hosts_only(kit: Kit) -> Outcome {
    let (site, inside) = (Site::start().await?, Site::start().await?);
    let secret = inside.page("/secret", Page::File(b"secret".to_vec()));
    site.page("/file", Page::File(b"content".to_vec()));
    site.page("/second", Page::Redirect("file".into()));
    let relative = site.page("/first", Page::Redirect("/second".into()));
    let circle = site.page("/circle", Page::Redirect("/circle".into()));
    let inward = site.page("/inward", Page::Redirect(secret));
    let to_a_file = site.page("/to-a-file", Page::Redirect("file:///etc/passwd".into()));
    let daemon = fetching(&kit, &format!("public,{}", site.0.address)).await?;
    let client = daemon.client();
    expect(&client, &fetch(&client, &relative).await?, b"content").await?;
    let check = async |uri: &str, expected, part: &str| {
        let answer = fetch(&client, uri).await?;
        let (code, text) = told(&answer);
        ensure!(code == expected && text.contains(part), "{uri}: {answer:?}");
        Ok(())
    };
    check(&circle, Code::Aborted, "redirects").await?;
    check(&inward, Code::PermissionDenied, "on the internet").await?;
    check(&to_a_file, Code::PermissionDenied, "\"file\"").await?;
    ensure!(inside.requests().is_empty(), "{:?}", inside.requests());
    Ok(())
}

async fn headers_go_to_the_host_that_they_are_for_and_no_further(kit: Kit) -> Outcome {
    let (site, other) = (Site::start().await?, Site::start().await?);
    let elsewhere = other.page("/file", Page::File(b"content".to_vec()));
    let uris =
        [site.page("/gone", Page::Status(404)), site.page("/moved", Page::Redirect(elsewhere))];
    let uris: Vec<&str> = uris.iter().map(String::as_str).collect();
    let daemon = fetching(&kit, "127.0.0.1").await?;
    let client = daemon.client();
    let qualifiers = [
        ("http_header:X-Token", "secret-of-all"),
        ("http_header_url:1:Authorization", "Basic secret-of-one"),
    ];
    let wanted = request(&client, &uris, &qualifiers);
    expect(&client, &call(&client, wanted).await?, b"content").await?;
    let asked = site.requests();
    let [first, second] = &*asked else { bail!("{asked:?}") };
    ensure!(first.contains("secret-of-all") && !first.contains("secret-of-one"), "{first}");
    ensure!(second.contains("secret-of-all") && second.contains("secret-of-one"), "{second}");
    let asked = other.requests();
    let [third] = &*asked else { bail!("{asked:?}") };
    ensure!(!third.contains("secret"), "{third}");
    ensure!(!daemon.log().contains("secret-of"), "a secret is in the log");
    // Without the secret, nobody gets what it opened.
    let answer = fetch(&client, uris[1]).await?;
    expect(&client, &answer, b"content").await?;
    ensure!(other.requests().len() == 2, "the content was served to a client without the secret");
    Ok(())
}

async fn qualifiers_that_can_not_be_followed_are_refused(kit: Kit) -> Outcome {
    let site = Site::start().await?;
    let uri = site.page("/file", Page::File(b"content".to_vec()));
    let daemon = fetching(&kit, "127.0.0.1").await?;
    let client = daemon.client();
    for (name, value) in [
        ("checksum.sri", "sha256-short"),
        ("checksum.sri", ""),
        ("http_header:Host", "elsewhere"),
        ("http_header:X-Split", "a\r\nHost: elsewhere"),
        ("vcs.branch", "main"),
        ("resource_type", "application/x-git"),
    ] {
        let refused = call(&client, request(&client, &[&uri], &[(name, value)])).await;
        let code = refused.err().map(|status| status.code());
        ensure!(code == Some(Code::InvalidArgument), "{name}: {code:?}");
    }
    let negative = Some(Duration { seconds: -1, nanos: 0 });
    let wanted = FetchBlobRequest { timeout: negative, ..request(&client, &[&uri], &[]) };
    let refused = call(&client, wanted).await.err().map(|status| status.code());
    ensure!(refused == Some(Code::InvalidArgument), "{refused:?}");
    ensure!(site.requests().is_empty(), "{:?}", site.requests());
    let canonical = [("bazel.canonical_id", "http://127.0.0.1/file")];
    let answer = call(&client, request(&client, &[&uri], &canonical)).await?;
    expect(&client, &answer, b"content").await?;
    Ok(())
}

async fn what_a_host_answers_is_told_by_its_code(kit: Kit) -> Outcome {
    let site = Site::start().await?;
    let daemon = fetching(&kit, "127.0.0.1,no-such-host.invalid").await?;
    let client = daemon.client();
    let closed = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    for (uri, expected) in [
        (site.page("/404", Page::Status(404)), Code::NotFound),
        (site.page("/410", Page::Status(410)), Code::NotFound),
        (site.page("/401", Page::Status(401)), Code::PermissionDenied),
        (site.page("/403", Page::Status(403)), Code::PermissionDenied),
        (site.page("/500", Page::Status(500)), Code::Aborted),
        (site.page("/206", Page::Status(206)), Code::Aborted),
        (site.page("/truncated", Page::Truncated), Code::Aborted),
        (format!("http://{closed}/"), Code::Aborted),
        ("http://no-such-host.invalid/".to_owned(), Code::Aborted),
        ("http://127.0.0.1:99999/".to_owned(), Code::Aborted),
    ] {
        let answer = fetch(&client, &uri).await?;
        let (code, text) = told(&answer);
        ensure!(code == expected && !text.is_empty(), "{uri}: {answer:?}");
        ensure!(answer.uri == uri && answer.blob_digest.is_none(), "{uri}: {answer:?}");
    }
    Ok(())
}

async fn a_host_that_falls_silent_ends_with_the_timeout(kit: Kit) -> Outcome {
    let site = Site::start().await?;
    let uri = site.page("/silent", Page::Silent);
    let daemon = fetching(&kit, "127.0.0.1").await?;
    let client = daemon.client();
    let timeout = Some(Duration { seconds: 1, nanos: 0 });
    let wanted = FetchBlobRequest { timeout, ..request(&client, &[&uri], &[]) };
    let answer = call(&client, wanted).await?;
    ensure!(told(&answer).0 == Code::DeadlineExceeded, "{answer:?}");
    Ok(())
}

/// `printf %s secret | sha256sum`.
const PRINCIPAL: &str = "[[token]]
name = 'other'
sha256 = '2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b'
rights = ['client']
";

async fn slow_fetches_leave_turns_to_other_hosts_and_clients(kit: Kit) -> Outcome {
    /// The bounds of the server.
    const FROM_HOST: usize = 8;
    const OF_CLIENT: usize = 16;
    let directory = kit.daemon().directory()?;
    let principals = directory.path().join("principals.toml");
    std::fs::write(&principals, PRINCIPAL)?;
    let hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    let builder = builder(&kit, &hosts.join(","))?.flag("--token-file").flag(&principals);
    let daemon = builder.start().await?;
    let client = daemon.client();
    let mut sites = Vec::new();
    for host in hosts {
        sites.push(Site::start_at(host, None).await?);
    }
    let [first, second, third] = &*sites else { bail!("three sites") };
    let mut slow = tokio::task::JoinSet::new();
    let mut begin = |site: &Site, count: usize| {
        for number in 0..count {
            let uri = site.page(&format!("/slow-{number}"), Page::Slow);
            let client = client.clone();
            slow.spawn(async move { fetch(&client, &uri).await });
        }
    };
    // One more than a host may have.
    begin(first, FROM_HOST + 1);
    testkit::eventually("a host is asked", || Ok(first.requests().len() == FROM_HOST)).await?;
    let uri = second.page("/file", Page::File(b"content".to_vec()));
    expect(&client, &fetch(&client, &uri).await?, b"content").await?;
    // As many as a client may have.
    begin(second, OF_CLIENT - FROM_HOST);
    let asked = || Ok(second.requests().len() == 1 + OF_CLIENT - FROM_HOST);
    testkit::eventually("another host is asked", asked).await?;
    let uri = third.page("/file", Page::File(b"content".to_vec()));
    let timeout = Some(Duration { seconds: 1, nanos: 0 });
    let wanted = FetchBlobRequest { timeout, ..request(&client, &[&uri], &[]) };
    let answer = call(&client, wanted.clone()).await?;
    ensure!(told(&answer).0 == Code::DeadlineExceeded, "{answer:?}");
    ensure!(third.requests().is_empty(), "{:?}", third.requests());
    // Another client has turns.
    let mut other = tonic::Request::new(FetchBlobRequest { timeout: None, ..wanted });
    other.metadata_mut().insert("authorization", "Bearer secret".parse()?);
    let answer = FetchClient::new(client.channel()).fetch_blob(other).await?.into_inner();
    expect(&client, &answer, b"content").await?;
    ensure!(first.requests().len() == FROM_HOST, "{:?}", first.requests());
    Ok(())
}

async fn a_file_that_is_too_large_is_not_stored(kit: Kit) -> Outcome {
    let site = Site::start().await?;
    let daemon = builder(&kit, "127.0.0.1")?.flag("--cas-size=64m").start().await?;
    let client = daemon.client();
    let other = client.put(b"another blob".to_vec()).await?;
    for (path, page) in [("/huge", Page::Huge), ("/endless", Page::Endless)] {
        let answer = fetch(&client, &site.page(path, page)).await?;
        ensure!(told(&answer).0 == Code::ResourceExhausted, "{path}: {answer:?}");
    }
    ensure!(client.missing(&[other]).await?.is_empty(), "another blob had to go");
    Ok(())
}

async fn a_fetch_needs_the_right_to_fill_the_store(kit: Kit) -> Outcome {
    let site = Site::start().await?;
    let uri = site.page("/file", Page::File(b"content".to_vec()));
    let daemon = builder(&kit, "127.0.0.1")?.flag("--read-only").start().await?;
    let answer = fetch(&daemon.client(), &uri).await?;
    let (code, text) = told(&answer);
    ensure!(code == Code::PermissionDenied && text.contains("write-cas"), "{answer:?}");
    ensure!(site.requests().is_empty(), "{:?}", site.requests());
    Ok(())
}

async fn older_content_is_fetched_anew(kit: Kit) -> Outcome {
    let site = Site::start().await?;
    let uri = site.page("/file", Page::File(b"first".to_vec()));
    let daemon = fetching(&kit, "127.0.0.1").await?;
    let client = daemon.client();
    expect(&client, &fetch(&client, &uri).await?, b"first").await?;
    site.page("/file", Page::File(b"second".to_vec()));
    expect(&client, &fetch(&client, &uri).await?, b"first").await?;
    let now = Timestamp::from(std::time::SystemTime::now());
    let newer =
        FetchBlobRequest { oldest_content_accepted: Some(now), ..request(&client, &[&uri], &[]) };
    expect(&client, &call(&client, newer).await?, b"second").await?;
    expect(&client, &fetch(&client, &uri).await?, b"second").await?;
    Ok(())
}

async fn a_fetch_goes_on_when_its_client_leaves(kit: Kit) -> Outcome {
    let site = Site::start().await?;
    let uri = site.page("/held", Page::Held(b"content".to_vec()));
    let daemon = fetching(&kit, "127.0.0.1").await?;
    let client = daemon.client();
    let waiting = tokio::spawn({
        let (client, uri) = (client.clone(), uri.clone());
        async move { fetch(&client, &uri).await }
    });
    testkit::eventually("the server asks", || Ok(site.requests().len() == 1)).await?;
    waiting.abort();
    let _ = waiting.await;
    site.0.release.notify_one();
    let digest = client.digest("content");
    eventually_async("the blob is here", async || Ok(client.missing(&[digest]).await?.is_empty()))
        .await?;
    eventually_async("the record is kept", async || {
        // A file that is not kept yet is asked for again, and that would hang: the page is held.
        let timeout = Some(Duration { seconds: 0, nanos: 100_000_000 });
        let wanted = FetchBlobRequest { timeout, ..request(&client, &[&uri], &[]) };
        Ok(told(&call(&client, wanted).await?).0 == Code::Ok)
    })
    .await?;
    Ok(())
}

async fn https_needs_a_certificate_of_a_known_ca(kit: Kit) -> Outcome {
    let authority = Authority::new("a CA of the test")?;
    let identity = authority.sign(Request::server(&["127.0.0.1"])?)?;
    let certificate = CertificateDer::from_pem_slice(identity.certificate_pem().as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes())?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let site = Site::start_at("127.0.0.1", Some(TlsAcceptor::from(Arc::new(config)))).await?;
    site.page("/file", Page::File(b"content".to_vec()));
    let to_http = format!("http://{}/file", site.0.address);
    site.page("/down", Page::Redirect(to_http));
    let uri = |path: &str| format!("https://{}{path}", site.0.address);
    // A daemon that knows the CA.
    let directory = kit.daemon().directory()?;
    let ca = directory.path().join("ca.pem");
    authority.write(&ca)?;
    let variable = format!("SSL_CERT_FILE={}", ca.display());
    let daemon = builder(&kit, "127.0.0.1")?.through(["env", &variable]).start().await?;
    let client = daemon.client();
    expect(&client, &fetch(&client, &uri("/file")).await?, b"content").await?;
    let answer = fetch(&client, &uri("/down")).await?;
    let (code, text) = told(&answer);
    ensure!(code == Code::Aborted && text.contains("from https to http"), "{answer:?}");
    // One that does not.
    let daemon = fetching(&kit, "127.0.0.1").await?;
    let client = daemon.client();
    let answer = fetch(&client, &uri("/file")).await?;
    ensure!(told(&answer).0 == Code::Aborted, "{answer:?}");
    Ok(())
}
