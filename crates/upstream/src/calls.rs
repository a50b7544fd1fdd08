//! The calls that move blobs and results, by way of whatever the upstream is. Each blob is verified on its way into
//! the store.

use bytes::Bytes;
use model::Digest;
use model::proto::ActionResult;
use store::Cas;

use crate::abilities::Abilities;
use crate::call_error::CallError;
use crate::link::Link;
use crate::server::Server;

impl Link {
    /// Those of the blobs, all of one function, that are not upstream. Asking a server keeps the others there for
    /// longer.
    pub(crate) async fn missing(
        &self,
        digests: &[Digest],
        caller: &Bytes,
    ) -> Result<Vec<Digest>, CallError> {
        match &self.server {
            Server::Grpc(grpc) => grpc.missing(self, digests, caller).await,
            #[cfg(feature = "objects")]
            Server::Bucket(bucket) => bucket.missing(self, digests).await,
        }
    }

    /// Stores blobs that fit into one batch, as far as the upstream has them.
    pub(crate) async fn read_batch(
        &self,
        digests: &[Digest],
        abilities: &Abilities,
        cas: &Cas,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        match &self.server {
            Server::Grpc(grpc) => grpc.read_batch(self, digests, abilities, cas, caller).await,
            #[cfg(feature = "objects")]
            Server::Bucket(bucket) => bucket.read_batch(self, digests, cas).await,
        }
    }

    /// Stores a blob of any size, in pieces.
    pub(crate) async fn read(
        &self,
        digest: &Digest,
        abilities: &Abilities,
        cas: &Cas,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        let read = match &self.server {
            Server::Grpc(grpc) => grpc.read(self, digest, abilities, cas, caller).await,
            #[cfg(feature = "objects")]
            Server::Bucket(bucket) => bucket.read(self, digest, cas).await,
        };
        if matches!(read, Err(CallError::Damaged)) {
            self.tell_damaged(digest);
        }
        read.map(|()| {
            self.counters.hits.add(1);
            self.counters.received_bytes.add(digest.size_bytes());
        })
    }

    /// Sends small blobs, which fit into one batch.
    pub(crate) async fn write_batch(
        &self,
        blobs: &[(Digest, Bytes)],
        abilities: &Abilities,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        match &self.server {
            Server::Grpc(grpc) => grpc.write_batch(self, blobs, abilities, caller).await?,
            #[cfg(feature = "objects")]
            Server::Bucket(bucket) => bucket.write_batch(self, blobs).await?,
        }
        self.counters.sent_bytes.add(blobs.iter().map(|(digest, _)| digest.size_bytes()).sum());
        Ok(())
    }

    /// Sends a blob of any size, in pieces.
    pub(crate) async fn write(
        &self,
        digest: &Digest,
        abilities: &Abilities,
        cas: &Cas,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        match &self.server {
            Server::Grpc(grpc) => grpc.write(self, digest, abilities, cas, caller).await?,
            #[cfg(feature = "objects")]
            Server::Bucket(bucket) => bucket.write(self, digest, cas).await?,
        }
        self.counters.sent_bytes.add(digest.size_bytes());
        Ok(())
    }

    /// The result of an action.
    pub(crate) async fn result(
        &self,
        instance: &str,
        action: &Digest,
        caller: &Bytes,
    ) -> Result<ActionResult, CallError> {
        match &self.server {
            Server::Grpc(grpc) => grpc.result(self, instance, action, caller).await,
            #[cfg(feature = "objects")]
            Server::Bucket(bucket) => bucket.result(self, instance, action).await,
        }
    }

    /// Sends the result of an action.
    pub(crate) async fn update_result(
        &self,
        instance: &str,
        action: &Digest,
        result: &ActionResult,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        match &self.server {
            Server::Grpc(grpc) => grpc.update_result(self, instance, action, result, caller).await,
            #[cfg(feature = "objects")]
            Server::Bucket(bucket) => bucket.update_result(self, instance, action, result).await,
        }
    }
}
