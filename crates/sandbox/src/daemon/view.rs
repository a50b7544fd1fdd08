//! A root file system as what a helper is told of it: detached mounts and little files.

use std::os::fd::OwnedFd;

use runtimes::Rootfs;

use crate::daemon::config::Config;
use crate::daemon::error::RunError;
use crate::plan::step::StepName;
use crate::protocol::message::Setup;

/// The set-up packet for `view`, and its mounts in order. The mounts are made
/// here, by the paths' owner, and never below a path that an action could change.
pub(crate) fn setup(
    view: &Rootfs,
    config: &Config,
    user: Option<u32>,
) -> Result<(Setup, Vec<OwnedFd>), RunError> {
    let clone = |source: &std::path::Path| {
        sys::mount_tree::clone_read_only(source).map_err(|errno| {
            RunError::with_detail(StepName::CloneView, errno, source.display().to_string())
        })
    };
    let mounts = view.mounts.iter().map(|mount| clone(&mount.source)).collect::<Result<_, _>>()?;
    let setup = Setup {
        sizes: config.sizes(),
        open_files: config.open_files,
        file_bytes: config.file_bytes,
        ids: config.ids,
        user,
        mounts: view.mounts.iter().map(|mount| mount.at.as_bytes().to_vec()).collect(),
        symlinks: view
            .symlinks
            .iter()
            .map(|(path, target)| (path.as_bytes().to_vec(), target.as_bytes().to_vec()))
            .collect(),
        files: view
            .files
            .iter()
            .map(|(path, content)| (path.as_bytes().to_vec(), content.clone()))
            .collect(),
    };
    Ok((setup, mounts))
}
