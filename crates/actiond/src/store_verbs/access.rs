//! The store that the verbs work on: opened here, or asked for at its server.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use access::Endpoint;
use anyhow::{Context as _, bail};
use history::Reader;
use model::Digest;
use proto::actiond::internal::v1::cas_client::CasClient;
use proto::actiond::internal::v1::store_client::StoreClient;
use proto::actiond::internal::v1::{
    CollectGarbageProgress, CollectGarbageRequest, DeleteBlobsRequest, GetUsageRequest,
    ListBlobsRequest, ListBlobsResponse, Usage, VerifyProgress, VerifyRequest,
};
use reapi::{by_target, maintenance};
use store::{Beside, Deleted, OpenError, Store, StoreOptions};
use tonic::{Code, Status, Streaming};

use crate::history_room::{self, HISTORY};
use crate::server::{self, Authorized, OPERATORS_SOCKET, Server};
use crate::server_flags::ServerArgs;

/// The result of the removal of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// It was there, and is not any more.
    Gone,
    /// It was not there.
    Absent,
    /// A running action needs it.
    InUse,
}

/// A store.
pub(crate) enum Access {
    /// No server has it. The history counts as it does to a server.
    Here(Arc<Store>, Beside),
    /// A server has it.
    There(Server),
}

impl Access {
    /// The store at `root`, here or at the server that has it; or that of another server.
    pub(crate) fn open(root: &Path, flags: &ServerArgs) -> anyhow::Result<Self> {
        if let Some(server) = flags.connect()? {
            return Ok(Self::There(server));
        }
        let root = std::path::absolute(root).context("finding the root directory")?;
        if !root.join("version").is_file() {
            bail!("there is no store at {}; --root names another directory", root.display());
        }
        match Store::open(&root, StoreOptions::default()) {
            Ok(store) => {
                let history = history_room::charge(&store);
                Ok(Self::Here(store, history))
            }
            Err(OpenError::InUse { .. }) => {
                let endpoint = Endpoint::Unix(root.join(OPERATORS_SOCKET));
                let advice = "a server has the store; --server names where it listens";
                Server::connect(&endpoint).context(advice).map(Self::There)
            }
            Err(error) => Err(error).with_context(|| format!("opening {}", root.display())),
        }
    }

    pub(crate) fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Here(store, history) => {
                drop(history);
                store.close().context("closing the store")
            }
            Self::There(_) => Ok(()),
        }
    }

    pub(crate) fn usage(&mut self, by_target: bool) -> anyhow::Result<Usage> {
        let usage = match self {
            Self::Here(store, _) => {
                let mut usage = maintenance::usage(store);
                if by_target {
                    let directory = store.path().join(HISTORY);
                    let reader = Reader::open(&directory).with_context(|| {
                        let directory = directory.display();
                        format!("there is no history in {directory}; `--history-days` turns it on")
                    })?;
                    by_target::add_targets(store, &mut usage, |page| reader.recent(page))?;
                }
                usage
            }
            Self::There(server) => {
                let mut client = server.store();
                let usage = client.get_usage(GetUsageRequest { by_target });
                server.wait(usage).map_err(said)?.into_inner()
            }
        };
        if by_target && usage.targets.is_none() {
            bail!("the server is too old to group blobs by target");
        }
        Ok(usage)
    }

    pub(crate) fn list(
        &mut self,
        request: &ListBlobsRequest,
        take: impl FnMut(ListBlobsResponse) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Here(store, _) => {
                maintenance::list(store, request, take);
                Ok(())
            }
            Self::There(server) => {
                let mut client = server.store();
                server.stream(async { client.list_blobs(*request).await }, take)
            }
        }
    }

    pub(crate) fn collect_garbage(
        &mut self,
        request: &CollectGarbageRequest,
        take: impl FnMut(CollectGarbageProgress) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Here(store, _) => Ok(maintenance::collect_garbage(store, request, take)?),
            Self::There(server) => {
                let mut client = server.store();
                server.stream(async { client.collect_garbage(*request).await }, take)
            }
        }
    }

    pub(crate) fn verify(
        &mut self,
        take: impl FnMut(VerifyProgress) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Here(store, _) => Ok(maintenance::verify(store, take)?),
            Self::There(server) => {
                let mut client = server.store();
                server.stream(async { client.verify(VerifyRequest {}).await }, take)
            }
        }
    }

    pub(crate) fn remove(&mut self, digest: &Digest) -> anyhow::Result<Removed> {
        match self {
            Self::Here(store, _) => Ok(match store.cas().delete(digest)? {
                Deleted::Gone => Removed::Gone,
                Deleted::Absent => Removed::Absent,
                Deleted::Pinned => Removed::InUse,
            }),
            Self::There(server) => server.remove(digest),
        }
    }
}

impl Server {
    fn store(&self) -> StoreClient<Authorized> {
        StoreClient::new(self.channel())
    }

    /// Takes the responses of a call until the last one, or until `take` breaks.
    fn stream<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<Streaming<T>>, Status>>,
        mut take: impl FnMut(T) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        self.wait(async {
            let mut responses = call.await.map_err(said)?.into_inner();
            while let Some(response) = responses.message().await.map_err(said)? {
                if take(response).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn remove(&self, digest: &Digest) -> anyhow::Result<Removed> {
        let request = DeleteBlobsRequest {
            instance_name: String::new(),
            blob_digests: vec![digest.to_proto()],
            digest_function: digest.function().to_proto(),
        };
        let mut client = CasClient::new(self.channel());
        let deleted = self.wait(client.delete_blobs(request)).map_err(said)?;
        let responses = deleted.into_inner().responses;
        let outcome = responses.first().context("the server did not answer for the blob")?;
        let status = outcome.status.clone().unwrap_or_default();
        match Code::from(status.code) {
            Code::Ok => Ok(Removed::Gone),
            Code::NotFound => Ok(Removed::Absent),
            Code::FailedPrecondition => Ok(Removed::InUse),
            _ => bail!("the server said: {}", status.message),
        }
    }
}

/// The server's answer as text for people.
fn said(status: Status) -> anyhow::Error {
    server::said("admin")(status)
}
