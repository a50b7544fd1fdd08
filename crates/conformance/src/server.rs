//! The server under test: a connection, what it announces, and what checks need again and again.

use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context as _;
use testkit::proto;
use testkit::proto::content_addressable_storage_client::ContentAddressableStorageClient;
use testkit::{Action, Client, Compressor, Digest, DigestFunction};
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::skip::skip;

/// The shell's search path.
const PATH: &str = "/bin:/usr/bin";

/// The size of the messages that gRPC libraries take unless they are told otherwise.
pub(crate) const DEFAULT_MESSAGE_BYTES: usize = 4 << 20;

/// A platform property, NAME=VALUE.
#[derive(Debug, Clone)]
pub(crate) struct Platform {
    name: String,
    value: String,
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("a property is NAME=VALUE")?;
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// The server under test.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) capabilities: Arc<proto::ServerCapabilities>,
    platform: Arc<Vec<Platform>>,
    /// The reason why no action with a shell can run, if there is one.
    no_shell: Arc<Option<String>>,
}

impl Server {
    /// Connects, asks for the capabilities, and tries to run a shell.
    ///
    /// # Errors
    /// When the server cannot be reached, or has no capabilities.
    pub(crate) async fn connect(
        url: &str,
        instance: &str,
        platform: Vec<Platform>,
    ) -> anyhow::Result<Self> {
        let channel =
            endpoint(url)?.connect().await.with_context(|| format!("connecting to {url}"))?;
        let client = Client::on(channel).with_instance(instance);
        let request = proto::GetCapabilitiesRequest { instance_name: instance.to_owned() };
        let answer = client.capabilities().get_capabilities(request).await;
        let capabilities = answer.context("asking for the capabilities")?.into_inner();
        let mut server = Self {
            client,
            capabilities: Arc::new(capabilities),
            platform: Arc::new(platform),
            no_shell: Arc::new(None),
        };
        if let Some(function) = server.functions().first() {
            server.client = server.client.with_function(*function);
        }
        server.no_shell =
            Arc::new(server.try_shell().await.err().map(|error| format!("{error:#}")));
        Ok(server)
    }

    async fn try_shell(&self) -> anyhow::Result<()> {
        self.execution()?;
        let run = self.action("exit 0")?.run().await.context("running /bin/sh")?;
        run.succeeded().await.context("running /bin/sh")?;
        Ok(())
    }

    /// The capabilities of the cache.
    pub(crate) fn cache(&self) -> anyhow::Result<&proto::CacheCapabilities> {
        match &self.capabilities.cache_capabilities {
            Some(cache) => Ok(cache),
            None => skip("no cache_capabilities are announced"),
        }
    }

    /// The capabilities of the execution service, where it is enabled.
    pub(crate) fn execution(&self) -> anyhow::Result<&proto::ExecutionCapabilities> {
        match &self.capabilities.execution_capabilities {
            Some(execution) if execution.exec_enabled => Ok(execution),
            Some(_) => skip("exec_enabled is false"),
            None => skip("no execution_capabilities are announced"),
        }
    }

    /// Skips unless clients may store results.
    pub(crate) fn updates_results(&self) -> anyhow::Result<()> {
        match &self.cache()?.action_cache_update_capabilities {
            Some(update) if update.update_enabled => Ok(()),
            _ => skip("action_cache_update_capabilities.update_enabled is false"),
        }
    }

    /// Skips unless the digest function in use may be left out of requests.
    pub(crate) fn infers(&self) -> anyhow::Result<()> {
        match self.client.function() {
            DigestFunction::Sha256 => Ok(()),
            function => skip(format!("{function} may not be left out of requests")),
        }
    }

    /// The same server, asked with another digest function.
    pub(crate) fn with_function(&self, function: DigestFunction) -> Self {
        Self { client: self.client.with_function(function), ..self.clone() }
    }

    /// The announced digest functions of actions that this program can compute.
    pub(crate) fn execution_functions(&self) -> anyhow::Result<Vec<DigestFunction>> {
        let execution = self.execution()?;
        let known = DigestFunction::ALL.into_iter();
        let announced = |function: &DigestFunction| {
            let value = function.to_proto();
            execution.digest_functions.contains(&value) || execution.digest_function == value
        };
        Ok(known.filter(announced).collect())
    }

    /// Skips unless blobs travel as streams of that compressor.
    pub(crate) fn streams(&self, compressor: Compressor) -> anyhow::Result<()> {
        has(&self.cache()?.supported_compressors, compressor, "supported_compressors")
    }

    /// Skips unless blobs of a batch may be compressed with that compressor.
    pub(crate) fn batches(&self, compressor: Compressor) -> anyhow::Result<()> {
        let compressors = &self.cache()?.supported_batch_update_compressors;
        has(compressors, compressor, "supported_batch_update_compressors")
    }

    /// The names of a resource in compressed form, for uploads and downloads.
    pub(crate) fn compressed_names(&self, digest: &Digest, compressor: &str) -> (String, String) {
        let name = self.client.download_name(digest);
        let (instance, blob) = name.split_at(name.rfind("blobs/").unwrap_or(0));
        let rest = blob.trim_start_matches("blobs/");
        let download = format!("compressed-blobs/{compressor}/{rest}");
        let upload = format!("{instance}uploads/{}/{download}", Uuid::new_v4());
        (upload, format!("{instance}{download}"))
    }

    /// The announced digest functions that this program can compute, SHA-256 first.
    pub(crate) fn functions(&self) -> Vec<DigestFunction> {
        let cache = self.capabilities.cache_capabilities.as_ref();
        let announced = cache.map_or(&[][..], |cache| &cache.digest_functions);
        let known = DigestFunction::ALL.into_iter();
        known.filter(|function| announced.contains(&function.to_proto())).collect()
    }

    /// A client that takes messages of the size that gRPC libraries take by default.
    pub(crate) fn default_cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.client.channel())
    }

    /// The bytes that one batch may hold.
    pub(crate) fn batch_bytes(&self) -> anyhow::Result<usize> {
        let announced = usize::try_from(self.cache()?.max_batch_total_size_bytes).unwrap_or(0);
        Ok(if announced == 0 { 1 << 20 } else { announced })
    }

    /// An action that runs a script with `/bin/sh`. No server has seen it before.
    pub(crate) fn action(&self, script: &str) -> anyhow::Result<Action> {
        if let Some(reason) = self.no_shell.as_ref() {
            return skip(reason.as_str());
        }
        Ok(self.command(["/bin/sh", "-c", script]).env("PATH", PATH))
    }

    /// An action that runs `arguments`, without an environment.
    pub(crate) fn command<S: Into<String>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Action {
        let action = self.client.bare_action(arguments).salt(&unique_text("salt"));
        let property = |action: Action, it: &Platform| action.property(&it.name, &it.value);
        self.platform.iter().fold(action, property)
    }
}

/// Parses the server's URL. Without a scheme, or with `grpc:`, it is HTTP/2 without TLS.
fn endpoint(url: &str) -> anyhow::Result<Endpoint> {
    let address = url.strip_prefix("grpc://").unwrap_or(url);
    let url =
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    anyhow::ensure!(!url.starts_with("https:"), "{url}: TLS is not supported");
    let endpoint = Endpoint::from_shared(url.clone()).with_context(|| format!("the URL {url}"))?;
    Ok(endpoint.tcp_nodelay(true))
}

fn has(compressors: &[i32], compressor: Compressor, field: &str) -> anyhow::Result<()> {
    if compressors.contains(&compressor.value().into()) {
        Ok(())
    } else {
        skip(format!("{field} does not contain {}", compressor.value().as_str_name()))
    }
}

/// Text that no server has seen.
pub(crate) fn unique_text(what: &str) -> String {
    format!("{what} {}\n", Uuid::new_v4())
}

/// A blob that no server has seen.
pub(crate) fn unique(what: &str) -> Vec<u8> {
    unique_text(what).into_bytes()
}

/// Bytes that no server has seen, and that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let (mut state, _) = Uuid::new_v4().as_u64_pair();
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64: fast, and unlike anything that is stored.
        state |= u64::from(state == 0);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |url: &str, expected: &str| {
            assert_eq!(endpoint(url).unwrap().uri().to_string(), expected);
        };
        check("127.0.0.1:8980", "http://127.0.0.1:8980/");
        check("grpc://host:1", "http://host:1/");
        check("http://host:1", "http://host:1/");
        assert!(endpoint("https://host").is_err());
        assert!(endpoint("grpc://").is_err());
    }

    #[test]
    fn properties() {
        let property: Platform = "libc=glibc=2.41".parse().unwrap();
        assert_eq!((property.name.as_str(), property.value.as_str()), ("libc", "glibc=2.41"));
        assert!("libc".parse::<Platform>().is_err());
    }

    #[test]
    fn noise_is_new_each_time() {
        assert_eq!(noise(13).len(), 13);
        assert_ne!(noise(64), noise(64));
    }
}
