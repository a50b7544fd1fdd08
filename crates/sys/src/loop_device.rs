//! Loop devices: a file as a block device, for kernels and file systems where EROFS cannot read a
//! file directly.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// The number of tries for a free device when other processes are faster.
///
/// Every failed attempt means that someone else succeeded, so this many misses in a row do not
/// happen by chance.
const MAX_ATTEMPTS: usize = 64;

// <linux/loop.h>
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LOOP_MAJOR: u32 = 7;

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232);
const _: () = assert!(size_of::<LoopConfig>() == 304);

/// An error of getting a loop device.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// A device file could not be opened.
    #[error("open({})", path.display())]
    Open {
        /// The device file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel offers no free device.
    #[error("ioctl(LOOP_CTL_GET_FREE)")]
    NoneFree(#[source] io::Error),
    /// The device does not take the file.
    #[error("ioctl(LOOP_CONFIGURE)")]
    Configure(#[source] io::Error),
    /// Other processes took every device that was offered.
    #[error("other processes took {MAX_ATTEMPTS} free loop devices in a row")]
    Contended,
}

/// A read-only loop device. It lets go of its file when neither this handle nor a mount uses it any
/// more, also after a SIGKILL.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _device: File,
}

impl LoopDevice {
    /// Attaches `backing` to a free loop device.
    ///
    /// Reads go through the backing file's page cache: it was just written, so direct I/O would
    /// only wait for it to reach the disk.
    pub fn attach(backing: BorrowedFd<'_>) -> Result<Self, LoopError> {
        let control_path = Path::new("/dev/loop-control");
        let control = open_device(control_path)
            .map_err(|source| LoopError::Open { path: control_path.to_owned(), source })?;
        for _ in 0..MAX_ATTEMPTS {
            let path = free_device(&control)?;
            let device = open_device(&path)
                .map_err(|source| LoopError::Open { path: path.clone(), source })?;
            match configure(&device, backing) {
                Ok(()) => {
                    return Ok(Self { path, _device: device });
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => continue,
                Err(error) => return Err(LoopError::Configure(error)),
            }
        }
        Err(LoopError::Contended)
    }

    /// The device file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn open_device(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// The path of a device that is free right now, made if the system does not make device files.
fn free_device(control: &File) -> Result<PathBuf, LoopError> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    let number =
        u32::try_from(number).map_err(|_| LoopError::NoneFree(io::Error::last_os_error()))?;
    let path = PathBuf::from(format!("/dev/loop{number}"));
    if !path.exists() {
        // In containers and small systems nobody (udev, devtmpfs) does it. If it fails, opening
        // the path gives the error.
        let _ = rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::BlockDevice,
            rustix::fs::Mode::from_raw_mode(0o600),
            rustix::fs::makedev(LOOP_MAJOR, number),
        );
    }
    Ok(path)
}

fn configure(device: &File, backing: BorrowedFd<'_>) -> io::Result<()> {
    let config = LoopConfig {
        fd: backing.as_raw_fd() as u32,
        block_size: 0,
        info: LoopInfo64 {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, whose layout `LoopConfig` has (its
    // size is asserted above) and which outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}
