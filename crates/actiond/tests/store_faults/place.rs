//! A disk in a mount namespace of its own, with a file system on it and the daemon's root in it.

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;

use anyhow::{Context as _, bail, ensure};
use testkit::{Daemon, Kit, eventually_async};

use crate::disk::Disk;

/// The file system on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Ext4,
    /// It is repaired after each power cut.
    Ext4WithoutJournal,
    Xfs,
    Btrfs,
}

impl FileSystem {
    /// The one that the run is about.
    pub(crate) fn of_environment() -> anyhow::Result<Self> {
        match std::env::var("ACTIOND_FAULT_FILE_SYSTEM").as_deref() {
            Err(std::env::VarError::NotPresent) | Ok("ext4") => Ok(Self::Ext4),
            Ok("ext4-without-journal") => Ok(Self::Ext4WithoutJournal),
            Ok("xfs") => Ok(Self::Xfs),
            Ok("btrfs") => Ok(Self::Btrfs),
            other => bail!("ACTIOND_FAULT_FILE_SYSTEM: {other:?}"),
        }
    }

    /// The program that makes it, with its arguments. There are so few inodes that a test can take all of them.
    fn maker(self) -> &'static str {
        match self {
            Self::Ext4 => "mkfs.ext4 -q -F -E nodiscard -N 16384",
            Self::Ext4WithoutJournal => "mkfs.ext4 -q -F -E nodiscard -N 16384 -O ^has_journal",
            Self::Xfs => "mkfs.xfs -q -f -K -i maxpct=3",
            Self::Btrfs => "mkfs.btrfs -q -f -K",
        }
    }

    /// The name of the kernel's driver.
    fn driver(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4WithoutJournal => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Whether the number of inodes is bounded.
    pub(crate) fn has_inodes(self) -> bool {
        self != Self::Btrfs
    }

    /// The command that stops all writing to it, as an error of its own would; none where there is no such command.
    pub(crate) fn stops_writing(self) -> Option<&'static str> {
        match self {
            Self::Ext4 | Self::Ext4WithoutJournal => Some("mount -o remount,abort \"$ROOT\""),
            Self::Xfs => Some("xfs_io -x -c 'shutdown -f' \"$ROOT\""),
            Self::Btrfs => None,
        }
    }
}

/// Space of a file system that others take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filling {
    /// Its blocks and its inodes.
    Space,
    /// Its inodes.
    Inodes,
}

/// The most files of one size: btrfs makes inodes as long as it has metadata.
const FILES_MAX: usize = 30_000;

/// A disk in a mount namespace of its own, with a file system on it.
pub(crate) struct Place {
    /// The disk.
    pub(crate) disk: Disk,
    directory: tempfile::TempDir,
    namespace: String,
    server: Option<JoinHandle<()>>,
    file_system: FileSystem,
}

impl Place {
    /// A new disk with a new file system, mounted.
    pub(crate) fn new(kit: &Kit, seed: u64, file_system: FileSystem) -> anyhow::Result<Self> {
        kit.only_on_the_host("the disk of a guest is a file of the host")?;
        if !std::path::Path::new("/dev/fuse").exists() {
            testkit::skip("there is no /dev/fuse")?;
        }
        let known = std::fs::read_to_string("/proc/filesystems")?;
        if !known.split_whitespace().any(|name| name == file_system.driver()) {
            testkit::skip(format!("this kernel has no {}", file_system.driver()))?;
        }
        let (maker, _) = file_system.maker().split_once(' ').context("a program and arguments")?;
        for program in ["nsenter", maker] {
            if Command::new(program).arg("--help").output().is_err() {
                testkit::skip(format!("{program} is not installed"))?;
            }
        }
        let directory = kit.daemon().directory()?;
        for name in ["fuse", "root"] {
            std::fs::create_dir(directory.path().join(name))?;
        }
        let disk = Disk::new(seed);
        let (server, mount_point) = (disk.clone(), directory.path().join("fuse"));
        let (tell, told) = std::sync::mpsc::channel();
        // The namespace is the thread's. Its mounts are gone when thread and daemon are.
        let server = std::thread::spawn(move || {
            let session = sys::mount::enter_private_namespace()
                .map_err(anyhow::Error::new)
                .and_then(|()| Ok(server.serve(&mount_point)?));
            let thread = rustix::thread::gettid();
            match session {
                Ok(session) => {
                    let _ = tell.send(Ok(thread));
                    // Ends when the disk is unmounted.
                    let _ = session.run();
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        });
        let thread = told.recv().context("the thread of the disk")?.context("mounting the disk")?;
        let namespace =
            format!("/proc/{}/task/{}/ns/mnt", std::process::id(), thread.as_raw_nonzero());
        let place = Self { disk, directory, namespace, server: Some(server), file_system };
        place.run(&format!("{} \"$FUSE/$DISK\"", file_system.maker()))?;
        place.mount()?;
        Ok(place)
    }

    /// Runs a shell script in the namespace.
    pub(crate) fn run(&self, script: &str) -> anyhow::Result<()> {
        let output = Command::new("nsenter")
            .args([&format!("--mount={}", self.namespace), "--", "sh", "-c", script])
            .env("FUSE", self.directory.path().join("fuse"))
            .env("DISK", self.disk.name())
            .env("ROOT", self.directory.path().join("root"))
            .output()?;
        ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Mounts the file system.
    pub(crate) fn mount(&self) -> anyhow::Result<()> {
        self.run("mount -o loop \"$FUSE/$DISK\" \"$ROOT\"")
    }

    /// Repairs a file system that has no journal to do it by. Exit code 1 says that there was something to
    /// repair.
    pub(crate) fn repair(&self) -> anyhow::Result<()> {
        match self.file_system {
            FileSystem::Ext4WithoutJournal => {
                self.run("e2fsck -fy \"$FUSE/$DISK\" || test $? -eq 1")
            }
            FileSystem::Ext4 | FileSystem::Xfs | FileSystem::Btrfs => Ok(()),
        }
    }

    /// Unmounts the file system as soon as nobody uses it.
    pub(crate) async fn unmount(&self) -> anyhow::Result<()> {
        eventually_async("the file system is unmounted", async || {
            Ok(self.run("umount \"$ROOT\"").is_ok())
        })
        .await
    }

    /// Starts the daemon on it.
    pub(crate) async fn start(&self, kit: &Kit, durability: &str) -> anyhow::Result<Daemon> {
        let root: PathBuf = self.directory.path().join("root/store");
        let through: [OsString; 3] =
            ["nsenter".into(), format!("--mount={}", self.namespace).into(), "--".into()];
        let daemon = kit.daemon().through(through).root(root).host_rootfs().flag("--cas-size=400m");
        daemon.flag(format!("--durability={durability}")).start().await
    }

    /// The directory of what others store, as it is seen from here.
    fn filler(&self) -> PathBuf {
        let root = self.directory.path().join("root/filler");
        let namespace = PathBuf::from(self.namespace.replace("ns/mnt", "root"));
        namespace.join(root.strip_prefix("/").expect("it is absolute"))
    }

    /// Fills the file system as others would: with large files, then with small ones, which take what is left of
    /// the blocks, of metadata and of the inodes.
    pub(crate) fn fill(&self, filling: Filling) -> anyhow::Result<()> {
        let filler = self.filler();
        match std::fs::create_dir(&filler) {
            Err(error)
                if !matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::StorageFull) =>
            {
                return Err(error).context("the directory of what others store");
            }
            _ => {}
        }
        let sizes: &[usize] = match filling {
            Filling::Space => &[1 << 20, 4096, 1000, 0],
            Filling::Inodes => &[0],
        };
        for &size in sizes {
            let content = vec![7; size];
            for number in 0..FILES_MAX {
                let path = filler.join(format!("{size}-{number}"));
                if path.exists() {
                    continue;
                }
                let written =
                    std::fs::File::create(&path).and_then(|mut file| file.write_all(&content));
                match written {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("filling the disk"),
                }
            }
        }
        Ok(())
    }

    /// Removes what [`Self::fill`] made.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        match std::fs::remove_dir_all(self.filler()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).context("emptying the disk")
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Where that fails, the namespace goes with this process.
        let unmounted = self.run("umount \"$ROOT\"; umount \"$FUSE\"");
        if let (Ok(()), Some(server)) = (unmounted, self.server.take()) {
            let _ = server.join();
        }
    }
}
