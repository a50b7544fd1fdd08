//! `linux-actiond image`: the OCI images that actions can have as their root file system.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use images::ImageName;
use store::{OpenError, Store, StoreOptions};

use crate::{logging, root_directory};

/// Flags of `image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// Directory of the store, as `serve` has it
    #[arg(
        long,
        value_name = "DIR",
        default_value_os_t = root_directory::default(),
        hide_default_value = true,
        global = true
    )]
    pub root: PathBuf,

    /// The verb
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// The verbs for images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Import an image; actions ask for it with the platform property `container-image` or
    /// `rootfs`. The server must not run, and shows it from its next start
    Import {
        /// The name that actions use for it, such as docker.io/library/debian:12
        name: ImageName,
        /// An OCI image layout: a directory, or a tar archive of one
        path: PathBuf,
    },
    /// List the imported images
    List,
    /// Forget an image, from the server's next start
    Remove {
        /// The name that actions use for it
        name: ImageName,
    },
}

/// Does it.
///
/// # Errors
/// When the store is in use or can't be read or written, or there is no such image.
pub fn run(arguments: &ImageArgs) -> anyhow::Result<ExitCode> {
    logging::start_for_command()?;
    let root = &arguments.root;
    match &arguments.command {
        ImageCommand::Import { name, path } => {
            let store = open_store(root)?;
            let imported = images::import(&store, name, path)
                .with_context(|| format!("importing {}", path.display()))?;
            store.close().context("closing the store")?;
            let (name, record) = (name.as_str(), &imported.record);
            println!("{name}: {} entries, {}", imported.entry_count, record.manifest);
        }
        ImageCommand::List => {
            for record in images::list(root)? {
                println!("{}  {}", record.name.as_str(), record.manifest);
            }
        }
        ImageCommand::Remove { name } => {
            if !images::remove(root, name)? {
                bail!("there is no image {}", name.as_str());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The store, which one process can have at a time: a server that runs knows by heart what is in it.
fn open_store(root: &Path) -> anyhow::Result<Arc<Store>> {
    Store::open(root, StoreOptions::default()).map_err(|error| {
        let advice = match error {
            OpenError::InUse { .. } => {
                ": stop that server, import, and start it again; nothing was changed"
            }
            _ => "",
        };
        anyhow::anyhow!("cannot open the root directory: {error}{advice}")
    })
}
