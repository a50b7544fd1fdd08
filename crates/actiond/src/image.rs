//! `linux-actiond image`: the OCI images that actions can have as their root file system.
//!
//! ```text
//!                                    ┌─ no server: blobs and record, here
//! layout ──► images::unpack, here ───┤
//!                                    └─ a server: blobs like any client's, then Images.PutImage ──► shown at once
//! ```
//!
//! An image is unpacked by this program, whoever has the store: no archive is parsed by a server.

mod access;
mod upload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use images::ImageName;

use self::access::Access;
use crate::output::print;
use crate::server_flags::ServerArgs;
use crate::{logging, root_directory};

/// Flags of `image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// Directory of the store, as `serve` has it. A server that runs on it is found by itself
    #[arg(
        long,
        value_name = "DIR",
        default_value_os_t = root_directory::default(),
        hide_default_value = true,
        global = true
    )]
    pub root: PathBuf,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    pub server: ServerArgs,

    /// The verb
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// The verbs for images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Import an image; actions ask for it with the platform property `container-image` or
    /// `rootfs`. A running server shows it at once, in place of an older one of that name
    Import {
        /// The name that actions use for it, such as docker.io/library/debian:12
        name: ImageName,
        /// An OCI image layout: a directory, or a tar archive of one
        path: PathBuf,
        /// The instance of a running server through which the files are uploaded, where it has `--instance-names`
        #[arg(long, value_name = "NAME", default_value = "")]
        instance: String,
    },
    /// List the imported images
    List,
    /// Forget an image. A running server refuses while actions run in it
    Remove {
        /// The name that actions use for it
        name: ImageName,
    },
}

/// Does it.
///
/// # Errors
/// When the store can't be read or written, its server refuses, or there is no such image.
pub fn run(arguments: &ImageArgs) -> anyhow::Result<ExitCode> {
    logging::start_for_command()?;
    let ImageArgs { root, server, command } = arguments;
    match command {
        ImageCommand::Import { name, path, instance } => {
            let access = Access::open(root, server)?;
            let imported = access.import(name, path, instance)?;
            let (name, record) = (name.as_str(), &imported.record);
            print(&format!("{name}: {} entries, {}\n", imported.entry_count, record.manifest))?;
        }
        ImageCommand::List => {
            let images = access::list(root, server)?;
            let lines = images.iter().map(|(name, manifest)| format!("{name}  {manifest}\n"));
            print(&lines.collect::<String>())?;
        }
        ImageCommand::Remove { name } => Access::open(root, server)?.remove(name)?,
    }
    Ok(ExitCode::SUCCESS)
}
