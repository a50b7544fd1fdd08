//! A plan as the framework's objects.
//!
//! Configurations are plain objects without thread affinity: they are made, set and validated by
//! one closure on the machine's queue, and copied by the machine that is made of them.

use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use objc2::AllocAnyThread as _;
use objc2::rc::Retained;
use objc2_foundation::{NSArray, NSFileHandle, NSString, NSURL};
use objc2_virtualization::{
    VZDiskImageCachingMode, VZDiskImageStorageDeviceAttachment, VZDiskImageSynchronizationMode,
    VZEntropyDeviceConfiguration, VZFileHandleSerialPortAttachment, VZGenericPlatformConfiguration,
    VZLinuxBootLoader, VZMemoryBalloonDeviceConfiguration, VZSerialPortConfiguration,
    VZSocketDeviceConfiguration, VZStorageDeviceConfiguration, VZVirtioBlockDeviceConfiguration,
    VZVirtioConsoleDeviceSerialPortConfiguration, VZVirtioEntropyDeviceConfiguration,
    VZVirtioSocketDeviceConfiguration, VZVirtioTraditionalMemoryBalloonDeviceConfiguration,
    VZVirtualMachineConfiguration,
};

use crate::delegate::describe;
use crate::plan::{Disk, Flush, Plan};

/// Errors of making the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// A path that the framework can't be given.
    #[error("{} is no path that macOS has", .0.display())]
    Path(PathBuf),
    /// A disk that can't be attached.
    #[error("attaching {}: {said}", path.display())]
    Disk {
        /// The image.
        path: PathBuf,
        /// The framework's words.
        said: String,
    },
    /// The machine as a whole can't be.
    #[error("the VM's configuration is refused: {0}")]
    Invalid(String),
}

/// A validated configuration. `console` gets what the guest writes to its serial console.
///
/// # Errors
/// See [`ConfigurationError`].
pub(crate) fn configure(
    plan: &Plan,
    console: OwnedFd,
) -> Result<Retained<VZVirtualMachineConfiguration>, ConfigurationError> {
    // SAFETY: `new` has no conditions; the object is used by this thread alone.
    let configuration = unsafe { VZVirtualMachineConfiguration::new() };
    let boot_loader = boot_loader(plan)?;
    // SAFETY: a setter that retains its argument.
    unsafe { configuration.setBootLoader(Some(&boot_loader)) };
    // SAFETY: a setter of a number, which validation checks.
    unsafe { configuration.setCPUCount(plan.cpus) };
    // SAFETY: as above.
    unsafe { configuration.setMemorySize(plan.memory_bytes) };
    set_platform(&configuration);
    set_disks(&configuration, &plan.disks)?;
    set_console(&configuration, console);
    set_small_devices(&configuration);
    // No network device: the default is none.

    // SAFETY: may be called at any time on a configuration; reports through its result.
    let valid = unsafe { configuration.validateWithError() };
    valid.map_err(|error| ConfigurationError::Invalid(describe(&error)))?;
    Ok(configuration)
}

fn boot_loader(plan: &Plan) -> Result<Retained<VZLinuxBootLoader>, ConfigurationError> {
    let kernel = file_url(&plan.kernel)?;
    let initramfs = file_url(&plan.initramfs)?;
    // SAFETY: the argument is a file URL, as the initializer wants. The file is read at start.
    let loader =
        unsafe { VZLinuxBootLoader::initWithKernelURL(VZLinuxBootLoader::alloc(), &kernel) };
    // SAFETY: a setter that copies its argument, a file URL.
    unsafe { loader.setInitialRamdiskURL(Some(&initramfs)) };
    // SAFETY: a setter that copies its argument.
    unsafe { loader.setCommandLine(&NSString::from_str(&plan.command_line)) };
    Ok(loader)
}

fn set_platform(configuration: &VZVirtualMachineConfiguration) {
    // SAFETY: `new` has no conditions. It makes an identifier of its own, so that two machines
    // never have the same.
    let platform = unsafe { VZGenericPlatformConfiguration::new() };
    // SAFETY: a setter that copies its argument.
    unsafe { configuration.setPlatform(&platform) };
}

fn set_disks(
    configuration: &VZVirtualMachineConfiguration,
    disks: &[Disk],
) -> Result<(), ConfigurationError> {
    let devices: Vec<Retained<VZStorageDeviceConfiguration>> =
        disks.iter().map(disk_device).collect::<Result<_, _>>()?;
    // SAFETY: a setter that copies its argument; each attachment is in one device only.
    unsafe { configuration.setStorageDevices(&NSArray::from_retained_slice(&devices)) };
    Ok(())
}

fn disk_device(disk: &Disk) -> Result<Retained<VZStorageDeviceConfiguration>, ConfigurationError> {
    let url = file_url(&disk.path)?;
    let synchronization = match disk.content.flush() {
        Flush::ToStorage => VZDiskImageSynchronizationMode::Full,
        Flush::Never => VZDiskImageSynchronizationMode::None,
    };
    // Cached by the host, explicitly: with the automatic choice, Linux guests on virtio-blk were seen
    // to find damaged ext4 metadata, which this cured in several products (UTM pull request 5919,
    // Lima pull request 2026).
    let caching = VZDiskImageCachingMode::Cached;
    // SAFETY: the URL is a file URL; the modes are values of their enumerations; failure is
    // reported through the result. The attachment opens the file and holds it.
    let attachment = unsafe {
        VZDiskImageStorageDeviceAttachment::initWithURL_readOnly_cachingMode_synchronizationMode_error(
            VZDiskImageStorageDeviceAttachment::alloc(),
            &url,
            disk.content.is_read_only(),
            caching,
            synchronization,
        )
    };
    let attachment = attachment.map_err(|error| ConfigurationError::Disk {
        path: disk.path.clone(),
        said: describe(&error),
    })?;
    // SAFETY: the attachment is new, so that no other device has it.
    let device = unsafe {
        VZVirtioBlockDeviceConfiguration::initWithAttachment(
            VZVirtioBlockDeviceConfiguration::alloc(),
            &attachment,
        )
    };
    Ok(Retained::into_super(device))
}

/// The guest's console, which the host only listens to.
fn set_console(configuration: &VZVirtualMachineConfiguration, console: OwnedFd) {
    // The file handle owns the descriptor from here on, and closes it when the machine, which holds
    // the handle, is gone: that is the end of the console for who reads the other side.
    let handle = NSFileHandle::initWithFileDescriptor_closeOnDealloc(
        NSFileHandle::alloc(),
        console.into_raw_fd(),
        true,
    );
    // SAFETY: the handle to write to has a valid descriptor; that to read from may be nil.
    let attachment = unsafe {
        VZFileHandleSerialPortAttachment::initWithFileHandleForReading_fileHandleForWriting(
            VZFileHandleSerialPortAttachment::alloc(),
            None,
            Some(&handle),
        )
    };
    // SAFETY: `new` has no conditions.
    let port = unsafe { VZVirtioConsoleDeviceSerialPortConfiguration::new() };
    // SAFETY: a setter that retains its argument, which no other port has.
    unsafe { port.setAttachment(Some(&attachment)) };
    let port: Retained<VZSerialPortConfiguration> = Retained::into_super(port);
    // SAFETY: a setter that copies its argument.
    unsafe { configuration.setSerialPorts(&NSArray::from_retained_slice(&[port])) };
}

/// vsock, randomness and the balloon: one of each, which is all that validation allows.
fn set_small_devices(configuration: &VZVirtualMachineConfiguration) {
    // SAFETY: `new` has no conditions.
    let socket = unsafe { VZVirtioSocketDeviceConfiguration::new() };
    let socket: Retained<VZSocketDeviceConfiguration> = Retained::into_super(socket);
    // SAFETY: a setter that copies its argument.
    unsafe { configuration.setSocketDevices(&NSArray::from_retained_slice(&[socket])) };

    // SAFETY: `new` has no conditions.
    let entropy = unsafe { VZVirtioEntropyDeviceConfiguration::new() };
    let entropy: Retained<VZEntropyDeviceConfiguration> = Retained::into_super(entropy);
    // SAFETY: a setter that copies its argument.
    unsafe { configuration.setEntropyDevices(&NSArray::from_retained_slice(&[entropy])) };

    // SAFETY: `new` has no conditions.
    let balloon = unsafe { VZVirtioTraditionalMemoryBalloonDeviceConfiguration::new() };
    let balloon: Retained<VZMemoryBalloonDeviceConfiguration> = Retained::into_super(balloon);
    // SAFETY: a setter that copies its argument.
    unsafe { configuration.setMemoryBalloonDevices(&NSArray::from_retained_slice(&[balloon])) };
}

fn file_url(path: &Path) -> Result<Retained<NSURL>, ConfigurationError> {
    NSURL::from_file_path(path).ok_or_else(|| ConfigurationError::Path(path.to_owned()))
}
