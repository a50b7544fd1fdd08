//! Which runtimes the daemon has, by its flags.

use runtimes::{ImageOptions, RuntimeOptions};

use crate::cli::ServeArgs;

/// Below the root directory: where the runtime image is mounted, for the daemon alone to see.
const MOUNT_POINT: &str = "runtimes";

/// What the flags say about runtimes. The root directory has to be there.
pub(crate) fn options(arguments: &ServeArgs) -> RuntimeOptions {
    let image = arguments.runtime_image.clone();
    RuntimeOptions {
        runtime_root: arguments.runtime_root.clone(),
        runtime_image: image
            .map(|file| ImageOptions { file, mount_point: arguments.root.join(MOUNT_POINT) }),
        host_rootfs: arguments.allow_host_rootfs.clone(),
    }
}
