//! The store that an image goes to: opened here, or that of a server.

use std::path::Path;
use std::sync::Arc;

use ::access::Endpoint;
use anyhow::{Context as _, bail};
use chain::visible;
use images::{ImageName, Imported};
use proto::actiond::internal::v1::images_client::ImagesClient;
use proto::actiond::internal::v1::{Image, ListImagesRequest, PutImageRequest, RemoveImageRequest};
use store::{OpenError, Store, StoreOptions};

use super::upload::Upload;
use crate::output::Progress;
use crate::server::{self, Authorized, OPERATORS_SOCKET, Server};
use crate::server_flags::ServerArgs;

/// A store.
pub(super) enum Access {
    /// No server has it.
    Here(Arc<Store>),
    /// A server has it.
    There(Server),
}

impl Access {
    /// The store at `root`, here or at the server that has it; or that of another server.
    pub(super) fn open(root: &Path, flags: &ServerArgs) -> anyhow::Result<Self> {
        if let Some(server) = flags.connect()? {
            return Ok(Self::There(server));
        }
        match Store::open(root, StoreOptions::default()) {
            Ok(store) => Ok(Self::Here(store)),
            Err(error @ OpenError::InUse { .. }) => {
                let root = std::path::absolute(root).context("finding the root directory")?;
                let endpoint = Endpoint::Unix(root.join(OPERATORS_SOCKET));
                let connected = Server::connect(&endpoint).map(Self::There);
                connected.with_context(|| {
                    format!(
                        "{error}, and it does not answer: name where it listens with --server, or stop it and try \
                         again; nothing was changed"
                    )
                })
            }
            Err(error) => Err(error).with_context(|| format!("opening {}", root.display())),
        }
    }

    /// Imports the image at `path`.
    pub(super) fn import(
        self,
        name: &ImageName,
        path: &Path,
        instance: &str,
    ) -> anyhow::Result<Imported> {
        let importing = || format!("importing {}", path.display());
        match self {
            Self::Here(store) => {
                let imported = images::import(&store, name, path).with_context(importing)?;
                store.close().context("closing the store")?;
                Ok(imported)
            }
            Self::There(server) => {
                let mut upload = Upload::start(&server, instance);
                let unpacked = images::unpack(&mut upload, name, path).with_context(importing);
                upload.end();
                let imported = unpacked?;
                put(&server, &imported).with_context(importing)?;
                Ok(imported)
            }
        }
    }

    /// Forgets an image.
    pub(super) fn remove(self, name: &ImageName) -> anyhow::Result<()> {
        match self {
            Self::Here(store) => {
                let is_removed = images::remove(store.path(), name)?;
                store.close().context("closing the store")?;
                if !is_removed {
                    bail!("there is no image {}", name.as_str());
                }
                Ok(())
            }
            Self::There(server) => {
                let request = RemoveImageRequest { name: name.as_str().to_owned() };
                let mut client = client(&server);
                server.wait(client.remove_image(request)).map_err(server::said("admin"))?;
                Ok(())
            }
        }
    }
}

/// The images that are recorded at `root`, which takes no server, or those of another server: names and manifests.
pub(super) fn list(root: &Path, flags: &ServerArgs) -> anyhow::Result<Vec<(String, String)>> {
    let Some(server) = flags.connect()? else {
        let records = images::list(root)?.into_iter();
        return Ok(records.map(|it| (it.name.as_str().to_owned(), it.manifest)).collect());
    };
    let mut client = client(&server);
    let answer = server.wait(client.list_images(ListImagesRequest {}));
    let images = answer.map_err(server::said("admin"))?.into_inner().images.into_iter();
    Ok(images.map(|it| (visible(&it.name), visible(&it.manifest))).collect())
}

/// Has a server show an image whose blobs it has.
fn put(server: &Server, imported: &Imported) -> anyhow::Result<()> {
    let record = &imported.record;
    let image = Image {
        name: record.name.as_str().to_owned(),
        root_digest: Some(record.root.to_proto()),
        manifest: record.manifest.clone(),
    };
    let mut client = client(server);
    let mut progress = Progress::start();
    progress.show("the server mounts the image");
    let answer = server.wait(client.put_image(PutImageRequest { image: Some(image) }));
    progress.end();
    answer.map(drop).map_err(server::said("admin"))
}

fn client(server: &Server) -> ImagesClient<Authorized> {
    ImagesClient::new(server.channel())
}
