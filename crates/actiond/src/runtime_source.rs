//! The daemon's runtimes: those of its flags, otherwise those inside of its executable.

use std::path::Path;

use anyhow::Context as _;
use embedded::Payload;
use runtimes::{ImageOptions, RuntimeOptions, Runtimes};

use crate::cli::ServeArgs;

/// The program that runs, whatever happened to its file.
const EXECUTABLE: &str = "/proc/self/exe";

/// Below the root directory: where the runtime image is mounted, for the daemon alone to see.
const MOUNT_POINT: &str = "runtimes";

/// Below the root directory: what was extracted from the executable.
const EMBEDDED: &str = "embedded";

/// Opens the runtimes that `serve` is to have. The root directory has to be there.
pub(crate) fn open(arguments: &ServeArgs) -> anyhow::Result<Runtimes> {
    let runtimes = Runtimes::open(&options(arguments)?).context("opening the runtimes")?;
    let names = runtimes.libc_names().collect::<Vec<_>>().join(", ");
    if names.is_empty() {
        tracing::info!("no runtimes: actions bring their own C library");
    } else {
        tracing::info!(names, "runtimes");
    }
    Ok(runtimes)
}

fn options(arguments: &ServeArgs) -> anyhow::Result<RuntimeOptions> {
    let root = &arguments.root;
    let runtime_image = match (&arguments.runtime_image, &arguments.runtime_root) {
        (None, None) => extracted(root)?,
        (file, _) => file.clone().map(|file| image(file, root)),
    };
    Ok(RuntimeOptions {
        runtime_root: arguments.runtime_root.clone(),
        runtime_image,
        host_rootfs: arguments.allow_host_rootfs.clone(),
    })
}

/// The image inside of the executable, as a file below `root`; `None` when there is none.
pub(crate) fn extracted(root: &Path) -> anyhow::Result<Option<ImageOptions>> {
    let directory = root.join(EMBEDDED);
    let extracted = embedded::extract(Path::new(EXECUTABLE), Payload::Runtimes, &directory)
        .context("extracting the runtimes from the executable")?;
    let Some(extracted) = extracted else { return Ok(None) };
    if extracted.is_new {
        tracing::info!(path = %extracted.path.display(), "runtimes extracted");
    }
    Ok(Some(image(extracted.path, root)))
}

fn image(file: std::path::PathBuf, root: &Path) -> ImageOptions {
    ImageOptions { file, mount_point: root.join(MOUNT_POINT) }
}

/// The names of the runtimes inside of the executable, found by mounting them, for a moment and
/// for one thread to see. `root` is a directory for trials.
pub(crate) fn names_in_executable(root: &Path) -> anyhow::Result<Vec<String>> {
    let names = || {
        sys::mount::enter_private_namespace()?;
        let Some(image) = extracted(root)? else { return Ok(Vec::new()) };
        let options = RuntimeOptions { runtime_image: Some(image), ..RuntimeOptions::default() };
        Ok(Runtimes::open(&options)?.libc_names().map(str::to_owned).collect())
    };
    let ended = std::thread::scope(|scope| scope.spawn(names).join());
    ended.unwrap_or_else(|_| anyhow::bail!("looking for runtimes ended early"))
}
