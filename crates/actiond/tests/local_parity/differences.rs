//! Calls that are known to differ, each with its reason. `docs/hermeticity.md` has the same rows.

use inputroot::StrategyName;
use rustix::fs::{CWD, FileType, IFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

/// A call that gives something else in an input root than in a plain directory.
pub(crate) struct Difference {
    pub(crate) call: &'static str,
    make: fn() -> Result<String, Errno>,
    /// In a plain directory of ext4.
    pub(crate) plain: &'static str,
    /// In an overlay.
    pub(crate) overlay: &'static str,
    /// With `bind`.
    pub(crate) bind: &'static str,
}

impl Difference {
    pub(crate) fn here(&self, strategy: StrategyName) -> &'static str {
        match strategy {
            StrategyName::Bind => self.bind,
            // The inputs lie on a file system that knows the flags, as the files of `bind` do.
            StrategyName::LinkOverlay | StrategyName::TmpfsOverlay
                if self.call.starts_with("ioctl(FS_IOC_") =>
            {
                self.bind
            }
            // An executable input is a link of a copy that is kept, as with `bind`.
            StrategyName::LinkOverlay if self.call == "links of an executable input" => self.bind,
            StrategyName::LinkOverlay if self.call == "links of an open input that was removed" => {
                "2"
            }
            StrategyName::LinkOverlay | StrategyName::TmpfsOverlay
                if self.call == "rename of an input directory" =>
            {
                "errno 18"
            }
            _ => self.overlay,
        }
    }
}

/// The reasons:
///
/// - Whiteouts are overlayfs's own marks, so an overlay makes none for others.
/// - An overlay does not count the directories in one that has two layers, and says 1, which tools know as
///   unknown.
/// - A sandbox is a user namespace, as linux-sandbox is, and has no other users.
/// - With `bind`, executable inputs of one content are links of one file.
/// - An input is a file of a lower layer, or with `bind` one of the store, which is still there.
/// - An overlay takes the set-id bits away before it calls the file system below, which may refuse.
/// - An overlay copies a directory of a lower layer up to change its attributes, which it can't do under a name that is
///   gone.
/// - Overlayfs notes that a directory of a lower layer was moved with `redirect_dir` only, which `userxattr`
///   excludes.
/// - EROFS, which has the inputs, knows no flags of chattr. With `bind` the file is one of the store.
pub(crate) const DIFFERENCES: [Difference; 10] = [
    Difference {
        call: "renameat2(RENAME_WHITEOUT)",
        make: || {
            std::fs::write("out/w", "x").map_err(|_| Errno::IO)?;
            rustix::fs::renameat_with(CWD, "out/w", CWD, "out/v", RenameFlags::WHITEOUT)?;
            Ok("done".to_owned())
        },
        plain: "done",
        overlay: "errno 22",
        bind: "done",
    },
    Difference {
        call: "mknod(a whiteout)",
        make: || {
            let device = rustix::fs::makedev(0, 0);
            rustix::fs::mknodat(CWD, "out/c", FileType::CharacterDevice, Mode::RUSR, device)?;
            Ok("done".to_owned())
        },
        plain: "done",
        overlay: "errno 1",
        bind: "done",
    },
    Difference {
        call: "ioctl(FS_IOC_SETFLAGS) of an input",
        make: || {
            let file = rustix::fs::open("d/tool", OFlags::RDONLY, Mode::empty())?;
            rustix::fs::ioctl_setflags(&file, rustix::fs::ioctl_getflags(&file)? | IFlags::NODUMP)?;
            Ok("done".to_owned())
        },
        plain: "errno 1",
        overlay: "errno 25",
        bind: "errno 1",
    },
    Difference {
        call: "links of an input directory that was changed",
        make: || {
            rustix::fs::mkdir("empty/new", Mode::RWXU)?;
            Ok(rustix::fs::stat("empty")?.st_nlink.to_string())
        },
        plain: "4",
        overlay: "1",
        bind: "4",
    },
    Difference {
        call: "links of an executable input",
        make: || Ok(rustix::fs::stat("d/tool")?.st_nlink.to_string()),
        plain: "1",
        overlay: "1",
        bind: "2",
    },
    Difference {
        call: "links of an open input that was removed",
        make: || {
            let file = rustix::fs::open("d/in", OFlags::RDONLY, Mode::empty())?;
            rustix::fs::unlink("d/in")?;
            Ok(rustix::fs::fstat(&file)?.st_nlink.to_string())
        },
        plain: "0",
        overlay: "1",
        bind: "1",
    },
    Difference {
        call: "the mode of a set-id file after a refused clone",
        make: || {
            let open = |name, mode| {
                let flags = OFlags::RDWR | OFlags::CREATE;
                rustix::fs::open(name, flags, Mode::from_raw_mode(mode))
            };
            let (from, to) = (open("out/from", 0o644)?, open("out/to", 0o2755)?);
            if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
                return Ok(NOT_REFUSED.to_owned());
            }
            Ok(format!("{:o}", rustix::fs::fstat(&to)?.st_mode & 0o7777))
        },
        plain: "2755",
        overlay: "755",
        bind: "2755",
    },
    Difference {
        call: "chown to another user than root",
        make: || {
            rustix::fs::chown("out", Some(Uid::from_raw(1)), None)?;
            Ok("done".to_owned())
        },
        plain: "errno 1",
        overlay: "errno 22",
        bind: "errno 22",
    },
    Difference {
        call: "rename of an input directory",
        make: || {
            rustix::fs::rename("d/sub", "out/sub")?;
            Ok("done".to_owned())
        },
        plain: "done",
        overlay: "done",
        bind: "done",
    },
    Difference {
        call: "time of an open input directory that was removed",
        make: || {
            let directory = rustix::fs::open("empty/deep", OFlags::DIRECTORY, Mode::empty())?;
            rustix::fs::rmdir("empty/deep")?;
            let time = Timespec { tv_sec: 5, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::futimens(&directory, &times)?;
            Ok("done".to_owned())
        },
        plain: "done",
        overlay: "errno 20",
        bind: "done",
    },
];

/// The outcome where the file system does what most of them refuse.
pub(crate) const NOT_REFUSED: &str = "not refused here";

/// Makes them all.
pub(crate) fn run() {
    for Difference { call, make, .. } in &DIFFERENCES {
        let outcome = make().unwrap_or_else(crate::program::shown_errno);
        println!("{call}: {outcome}");
    }
}
