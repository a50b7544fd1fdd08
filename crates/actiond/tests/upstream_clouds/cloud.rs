//! An emulator of a cloud's object store, and requests to it that do not go through the daemon.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use testkit::{
    DaemonBuilder, Digest, DigestFunction, Kit, ReservedAddress, bounded, eventually_async,
};

use crate::front;

/// The container, or the bucket, that the tests use.
const BUCKET: &str = "bucket";

/// The first part of the names of objects. The server of S3 has names of files that are longer by a half, of 255 bytes at
/// most.
const PREFIX: &str = "t";

/// The account of the emulator, of the tests alone.
const ACCOUNT: &str = "testaccount";

/// Its key in base64.
pub(crate) const KEY: &str = "a2V5LW9mLXRoZS10ZXN0cy10aGF0LWlzLWluLW5vLWxvZw==";

/// Another key.
pub(crate) const WRONG_KEY: &str = "YW5vdGhlci1rZXktdGhhdC1pcy1pbi1uby1sb2ctYXMtd2VsbA==";

/// The service that is emulated.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Service {
    /// Azure Blob Storage, by Azurite.
    Azure,
    /// Google Cloud Storage, by a server of S3 behind a [`front`]: both have the same requests, but for the proof of who
    /// asks.
    Google,
}

impl Service {
    /// The variable with the path of the emulator.
    fn variable(self) -> &'static str {
        match self {
            Self::Azure => "ACTIOND_TEST_AZURE_SERVER",
            Self::Google => "ACTIOND_TEST_S3_SERVER",
        }
    }

    /// The emulator, listening at `address` with its files in `directory`.
    fn command(self, program: &Path, directory: &Path, address: SocketAddr) -> Command {
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let files = directory.join("files");
        match self {
            Self::Azure => {
                // A script.
                let mut command = bounded("node");
                command.arg(program).args(["--blobHost", &host, "--blobPort", &port]);
                command.args(["--silent", "--disableTelemetry", "--location"]).arg(files);
                command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"));
                command
            }
            Self::Google => {
                let mut command = bounded(program);
                command.args(["--host", &host, "--port", &port]).arg(files);
                command
            }
        }
    }
}

/// An emulator; killed when dropped.
pub(crate) struct Cloud {
    service: Service,
    program: PathBuf,
    process: Child,
    address: ReservedAddress,
    directory: tempfile::TempDir,
    /// Variables of the environment of daemons; the last one of a name counts.
    pub(crate) environment: Vec<String>,
    /// The address of the objects.
    pub(crate) place: String,
}

impl Cloud {
    pub(crate) async fn start(kit: &Kit, service: Service) -> anyhow::Result<Self> {
        kit.only_on_the_host("a guest has no network for an upstream")?;
        let variable = service.variable();
        let Some(program) = std::env::var_os(variable).map(PathBuf::from) else {
            testkit::skip(format!("{variable} names no server; `cargo xtask e2e upstream` does"))?;
            unreachable!("skipping is an error");
        };
        let directory = kit.daemon().directory()?;
        if let Service::Google = service {
            fs::create_dir_all(directory.path().join("files").join(BUCKET))?;
        }
        let address = ReservedAddress::new()?;
        let process = spawn(service, &program, directory.path(), address.get())?;
        let (scheme, environment) = match service {
            Service::Azure => ("az", azure_environment(address.get())),
            Service::Google => ("gs", google_environment(address.get(), directory.path())?),
        };
        let place = format!("{scheme}://{BUCKET}/{PREFIX}");
        let cloud = Self { service, program, process, address, directory, environment, place };
        cloud.until_it_has_a_bucket().await?;
        Ok(cloud)
    }

    /// A daemon that has the objects below its store.
    pub(crate) fn above(&self, kit: &Kit) -> DaemonBuilder {
        let words = ["env".to_owned()].into_iter().chain(self.environment.clone());
        let daemon = kit.daemon().host_rootfs().through(words);
        let daemon = daemon.flag("--upstream-cas").flag(&self.place);
        // On a busy machine the upstream may take its time.
        daemon.flag("--upstream-ac").flag(&self.place).flag("--upstream-timeout=120s")
    }

    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        let (directory, address) = (self.directory.path(), self.address.get());
        self.process = spawn(self.service, &self.program, directory, address)?;
        self.until_it_has_a_bucket().await
    }

    /// Azurite may have forgotten it when it was killed.
    async fn until_it_has_a_bucket(&self) -> anyhow::Result<()> {
        let make = async || {
            let answer = match self.service {
                Service::Azure => {
                    let target = format!("/{ACCOUNT}/{BUCKET}?restype=container&{}", self.token());
                    self.ask("PUT", &target, &[], b"")
                }
                Service::Google => self.ask("GET", &format!("/{BUCKET}?list-type=2"), &[], b""),
            };
            // 409 says that it is there.
            Ok(answer.is_ok_and(|(code, _)| matches!(code, 200 | 201 | 409)))
        };
        let made = eventually_async("the server makes a bucket", make).await;
        made.with_context(|| {
            fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
        })
    }

    /// Puts a blob where the documentation says that it is.
    pub(crate) fn put(&self, content: &[u8]) -> anyhow::Result<Digest> {
        let digest = Digest::of(DigestFunction::Sha256, content);
        self.put_as(&digest, content)?;
        Ok(digest)
    }

    /// Puts any content in the place of a blob.
    pub(crate) fn put_as(&self, digest: &Digest, content: &[u8]) -> anyhow::Result<()> {
        let headers = [("x-ms-blob-type", "BlockBlob")];
        let (code, answer) = self.ask("PUT", &self.target(digest), &headers, content)?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(matches!(code, 200 | 201), "putting an object: {code} {answer}");
        Ok(())
    }

    /// The content in the place of a blob.
    pub(crate) fn get(&self, digest: &Digest) -> anyhow::Result<Vec<u8>> {
        let (code, content) = self.ask("GET", &self.target(digest), &[], b"")?;
        ensure!(code == 200, "an object: {code} {}", String::from_utf8_lossy(&content));
        Ok(content)
    }

    /// The path and the query of a request for a blob.
    fn target(&self, digest: &Digest) -> String {
        let (hex, size) = (digest.hex(), digest.size_bytes());
        let name = format!("{PREFIX}/actiond-1/cas/sha256/{}/{hex}-{size}", &hex[..2]);
        match self.service {
            Service::Azure => format!("/{ACCOUNT}/{BUCKET}/{name}?{}", self.token()),
            Service::Google => format!("/{BUCKET}/{name}"),
        }
    }

    /// Makes a request, and returns the code and the body of the answer.
    fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(self.address.get())?;
        // Version 1.0 has neither chunks nor connections that stay open.
        let mut head = format!("{method} {target} HTTP/1.0\r\nHost: {}\r\n", self.address.get());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("x-ms-version: {VERSION}\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let end = end.context("an answer without an end of its headers")?;
        let head = String::from_utf8_lossy(&answer[..end]);
        let code = head.split(' ').nth(1).context("an answer without a code")?.parse()?;
        Ok((code, answer[end + 4..].to_vec()))
    }

    /// The same emulator for daemons with a shared access signature in place of the key.
    pub(crate) fn with_signature(mut self) -> Self {
        self.environment.retain(|word| !word.contains("ACCOUNT_KEY"));
        self.environment.push(format!("AZURE_STORAGE_SAS_TOKEN={}", self.token()));
        self
    }

    /// The signature itself, as it is in addresses.
    pub(crate) fn signature(&self) -> String {
        let token = self.token();
        token.rsplit_once("sig=").map(|(_, signature)| signature.to_owned()).unwrap_or_default()
    }

    /// A shared access signature for everything in the account, as Microsoft's documentation of "account SAS" has it.
    fn token(&self) -> String {
        const EXPIRES: &str = "2100-01-01T00:00:00Z";
        let lines = [ACCOUNT, "rwdlac", "b", "sco", "", EXPIRES, "", "", VERSION, "", ""];
        let key = BASE64.decode(KEY).expect("the key is in base64");
        let signature = BASE64.encode(hmac_sha256(&key, lines.join("\n").as_bytes()));
        let parts = [
            ("sv", VERSION),
            ("ss", "b"),
            ("srt", "sco"),
            ("sp", "rwdlac"),
            ("se", EXPIRES),
            ("sig", &signature),
        ];
        parts.map(|(name, value)| format!("{name}={}", in_a_query(value))).join("&")
    }

    /// A part of the private key of Google's service account.
    pub(crate) fn private_key(&self) -> anyhow::Result<String> {
        let text = fs::read_to_string(self.directory.path().join(ACCOUNT_FILE))?;
        Ok(text.split("\\n").nth(1).context("a key in several lines")?.to_owned())
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.kill();
    }
}

/// The version of Azure's protocol.
const VERSION: &str = "2021-12-02";

fn spawn(
    service: Service,
    program: &Path,
    directory: &Path,
    address: SocketAddr,
) -> anyhow::Result<Child> {
    let log = fs::File::create(directory.join("log"))?;
    let mut command = service.command(program, directory, address);
    command.current_dir(directory);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("starting {}", program.display()))
}

fn azure_environment(address: SocketAddr) -> Vec<String> {
    vec![
        format!("AZURE_STORAGE_ENDPOINT=http://{address}/{ACCOUNT}"),
        "AZURE_ALLOW_HTTP=true".to_owned(),
        format!("AZURE_STORAGE_ACCOUNT_NAME={ACCOUNT}"),
        format!("AZURE_STORAGE_ACCOUNT_KEY={KEY}"),
    ]
}

fn google_environment(server: SocketAddr, directory: &Path) -> anyhow::Result<Vec<String>> {
    let account = directory.join(ACCOUNT_FILE);
    // node is here for Azurite.
    let output = Command::new("node").args(["-e", MAKE_ACCOUNT]).output().context("node")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::write(&account, &output.stdout)?;
    Ok(vec![
        format!("GOOGLE_BASE_URL=http://{}", front::start(server)?),
        "GOOGLE_ALLOW_HTTP=true".to_owned(),
        format!("GOOGLE_APPLICATION_CREDENTIALS={}", account.display()),
    ])
}

/// The file of a service account of Google's, in the directory of the server.
const ACCOUNT_FILE: &str = "account.json";

/// Prints such a file with a new key.
const MAKE_ACCOUNT: &str = "
    const { privateKey } = require('crypto').generateKeyPairSync('rsa', {
        modulusLength: 2048,
        privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
        publicKeyEncoding: { type: 'spki', format: 'pem' },
    });
    console.log(JSON.stringify({
        type: 'service_account',
        private_key: privateKey,
        private_key_id: 'id',
        client_email: 'tests@example.com',
    }));
";

/// RFC 2104, with a key that is no longer than a block.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let padded = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(padding, key)| *padding ^= key);
        block
    };
    let hash = |start: [u8; 64], rest: &[u8]| {
        Digest::of(DigestFunction::Sha256, &[&start, rest].concat()).hash().to_vec()
    };
    hash(padded(0x5c), &hash(padded(0x36), message))
}

/// The word with escapes for all that has a meaning in a query.
fn in_a_query(word: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    word.bytes().map(escape).collect()
}
