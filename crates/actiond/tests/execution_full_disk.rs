//! Actions on a disk that is full, in earnest: the state is on a small tmpfs that only the daemon and
//! what it starts can see.

use std::fs::{self, File};
use std::path::PathBuf;

use testkit::{Daemon, Kit, Outcome};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    an_input_root_without_a_free_inode_is_resource_exhausted,
}

/// Inodes of the tmpfs: the directories of a store, and room for a few actions.
const INODES: usize = 20_000;

/// The number of times that the disk is filled up. The store makes room meanwhile, and may evict blobs that
/// an action needs.
const ROUNDS: usize = 50;

/// The tmpfs of a daemon, seen through its mount namespace.
struct Disk {
    filler: PathBuf,
    files: usize,
}

impl Disk {
    fn of(daemon: &Daemon) -> std::io::Result<Self> {
        let root = PathBuf::from(format!("/proc/{}/root", daemon.pid()));
        let state = daemon.root().strip_prefix("/").unwrap_or(daemon.root());
        let filler = root.join(state).with_file_name("filler");
        fs::create_dir_all(&filler)?;
        Ok(Self { filler, files: 0 })
    }

    /// Takes every inode that is free.
    fn fill(&mut self) -> anyhow::Result<()> {
        loop {
            match File::create(self.filler.join(self.files.to_string())) {
                Ok(_) => self.files += 1,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn empty(&mut self) -> std::io::Result<()> {
        self.files = 0;
        fs::remove_dir_all(&self.filler)?;
        fs::create_dir(&self.filler)
    }
}

async fn an_input_root_without_a_free_inode_is_resource_exhausted(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM has a disk of its own")?;
    let place = kit.daemon().directory()?;
    let mount = format!(
        "mount -t tmpfs -o size=256m,nr_inodes={INODES},mode=755 tmpfs {0} && exec \"$@\"",
        place.path().display()
    );
    let through =
        ["unshare", "--mount", "--propagation", "private", "bash", "-c", mount.as_str(), "place"];
    let root = place.path().join("root");
    let daemon = kit.daemon().through(through).host_rootfs().root(root).start().await?;
    let mut disk = Disk::of(&daemon)?;
    let mut codes = Vec::new();
    for round in 0..ROUNDS {
        // Their input root is one, so that its image is there and only the overlay is not.
        let action = |salt: String| daemon.client().action("cat in").input("in", "x").salt(&salt);
        action(format!("before {round}")).run().await?.succeeded().await?;
        let action = action(format!("full {round}"));
        action.upload().await?;
        disk.fill()?;
        let run = action.run_without_upload().await?;
        let message = run.message();
        match run.code() {
            // Room was made in time, or the action was evicted for it.
            Code::Ok | Code::FailedPrecondition => {}
            Code::ResourceExhausted => {
                let is_mount = message.starts_with("presenting the inputs: ")
                    && message.contains("No space left on device");
                codes.push(message.to_owned());
                if is_mount && message.contains("overlay") {
                    return Ok(());
                }
            }
            code => anyhow::bail!("{code:?}: {message}\n{}", daemon.log()),
        }
        disk.empty()?;
    }
    // Every answer was right, but none was the one that this looks for.
    testkit::skip(format!("the store made room in time in all {ROUNDS} rounds: {codes:?}"))
}
