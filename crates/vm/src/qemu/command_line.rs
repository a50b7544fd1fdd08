//! QEMU's arguments for a machine. Pure: what is to be opened is a list, and comes back as numbers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Accelerator, Architecture};
use crate::mux::PORT_NAME;

/// The transport between host and guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Transport {
    /// Through the host kernel's vsock, to this context id.
    Vsock {
        /// The guest's address.
        cid: u32,
    },
    /// Through a virtio-serial port, with [`crate::mux`] on top.
    Mux,
}

impl Transport {
    /// For the log and the guest's command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vsock { .. } => "vsock",
            Self::Mux => "mux",
        }
    }
}

/// A machine, as the launcher gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) architecture: Architecture,
    pub(super) accelerator: Accelerator,
    pub(super) transport: Transport,
    pub(super) memory_mib: u32,
    pub(super) cpus: u32,
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    pub(super) cas_image: PathBuf,
    pub(super) runtime_image: Option<PathBuf>,
    /// See [`Boot::guest_words`](crate::Boot::guest_words).
    pub(super) guest_words: String,
}

/// Descriptors of the files that QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptors {
    pub(super) kernel: i32,
    pub(super) initramfs: i32,
    pub(super) cas_image: Disk,
    pub(super) runtime_image: Option<Disk>,
    pub(super) vhost_vsock: Option<i32>,
}

/// Descriptors of a disk. QEMU takes from a set the one with the very access that it needs at a time,
/// and it opens a disk for reading before it does so for writing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk {
    pub(super) read: i32,
    pub(super) write: Option<i32>,
}

/// The machines of QEMU that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Board {
    /// x86 with KVM: boots fastest. Devices are found through the kernel's command line.
    Microvm,
    /// x86 without KVM: has a clock that emulation keeps right. `microvm`'s is either hardware-reduced
    /// ACPI, which leaves an emulated kernel nothing to calibrate its clock against, or a tick of 4 ms,
    /// which an emulator on a busy host loses by the second.
    Q35,
    /// arm64.
    Virt,
}

impl Board {
    fn of(launch: &Launch) -> Self {
        match (launch.architecture, launch.accelerator) {
            (Architecture::X86_64, Accelerator::Kvm) => Self::Microvm,
            (Architecture::X86_64, Accelerator::Tcg { .. }) => Self::Q35,
            (Architecture::Aarch64, _) => Self::Virt,
        }
    }

    fn machine(self) -> &'static str {
        match self {
            Self::Microvm => "microvm,acpi=off,rtc=on,isa-serial=on,usb=off,graphics=off",
            Self::Q35 => "q35,usb=off,graphics=off,smm=off,vmport=off",
            Self::Virt => "virt",
        }
    }

    /// The name of a virtio device of that kind: on PCI, or on a bus of its own.
    fn device(self, kind: &str) -> String {
        match self {
            Self::Microvm | Self::Virt => format!("{kind}-device"),
            Self::Q35 => format!("{kind}-pci"),
        }
    }

    /// The words for it on the guest's kernel command line.
    fn kernel_words(self) -> &'static str {
        match self {
            // microvm without ACPI can't be switched off, but a reset ends it (`-no-reboot`). The
            // kernel need not look for what is not there.
            Self::Microvm => "console=ttyS0 acpi=off pci=off reboot=t actiond.power_off=reset",
            // An emulated TSC is no clock, which the kernel finds out late, and then rewrites its own
            // code while all CPUs run: an emulator may still run the old one ("Oops: int3"). And a busy
            // host's emulator can lose the few ticks by which the kernel checks its timer, which it
            // takes for a reason to panic.
            Self::Q35 => "console=ttyS0 tsc=unstable no_timer_check actiond.power_off=off",
            Self::Virt => "console=ttyAMA0 actiond.power_off=off",
        }
    }
}

/// All arguments after the program's name.
pub(super) fn arguments(launch: &Launch, open: &Descriptors) -> Vec<String> {
    let board = Board::of(launch);
    let mut line = Line::default();
    line.words(&["-nodefaults", "-no-user-config", "-no-reboot"]);
    line.words(&["-display", "none", "-monitor", "none"]);
    // The system calls that QEMU gives up when the guest starts to run.
    line.words(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"]);
    processor_and_memory(&mut line, board, launch);
    line.option("-kernel", format!("/proc/self/fd/{}", open.kernel));
    line.option("-initrd", format!("/proc/self/fd/{}", open.initramfs));
    line.option("-append", kernel_command_line(board, launch));
    // A socket, so that a slow reader does not stop the guest.
    line.words(&["-chardev", "socket,id=console,fd=1", "-serial", "chardev:console"]);
    disk(&mut line, board, "cas", open.cas_image, CAS_OPTIONS);
    if let Some(runtimes) = open.runtime_image {
        disk(&mut line, board, "runtimes", runtimes, "readonly=on");
    }
    transport(&mut line, board, launch.transport, open.vhost_vsock);
    line.words(&["-object", "rng-random,id=rng,filename=/dev/urandom"]);
    line.option("-device", format!("{},rng=rng", board.device("virtio-rng")));
    // Memory that the guest frees goes back to the host by itself.
    let balloon = board.device("virtio-balloon");
    line.option("-device", format!("{balloon},free-page-reporting=on,deflate-on-oom=on"));
    line.0
}

fn processor_and_memory(line: &mut Line, board: Board, launch: &Launch) {
    line.words(&["-machine", board.machine()]);
    line.words(match launch.accelerator {
        Accelerator::Kvm => &["-accel", "kvm", "-cpu", "host"],
        Accelerator::Tcg { parallel: true } => &["-accel", "tcg,thread=multi"],
        Accelerator::Tcg { parallel: false } => &["-accel", "tcg,thread=single"],
    });
    if let Accelerator::Tcg { .. } = launch.accelerator {
        line.words(match launch.architecture {
            Architecture::X86_64 => &["-cpu", "max"],
            // The architecture's own cipher for signed pointers takes most of an emulator's time.
            Architecture::Aarch64 => &["-cpu", "max,pauth-impdef=on"],
        });
    }
    line.words(&["-global", "virtio-mmio.force-legacy=false"]);
    line.option("-smp", launch.cpus.to_string());
    line.option("-m", format!("{}M", launch.memory_mib));
}

/// The options of the disk that the guest writes to. It is told of a write that found no space on the host, for the
/// image is sparse: by default QEMU would halt the machine, until somebody lets it go on.
const CAS_OPTIONS: &str = "cache=writeback,discard=unmap,werror=report";

/// A disk that QEMU gets as descriptors, in a set, which is how its block layer takes them.
fn disk(line: &mut Line, board: Board, id: &str, disk: Disk, options: &str) {
    let set = disk.read;
    for descriptor in [Some(disk.read), disk.write].into_iter().flatten() {
        line.option("-add-fd", format!("fd={descriptor},set={set}"));
    }
    line.option(
        "-drive",
        format!("if=none,id={id},file=/dev/fdset/{set},format=raw,aio=threads,{options}"),
    );
    line.option("-device", format!("{},drive={id},serial={id}", board.device("virtio-blk")));
}

fn transport(line: &mut Line, board: Board, transport: Transport, vhost_vsock: Option<i32>) {
    match (transport, vhost_vsock) {
        (Transport::Vsock { cid }, Some(descriptor)) => {
            let device = board.device("vhost-vsock");
            line.option("-device", format!("{device},guest-cid={cid},vhostfd={descriptor}"));
        }
        // The mux is on descriptor 0. Port 0 of a virtio-serial device is for consoles only.
        _ => {
            line.words(&["-chardev", "socket,id=mux,fd=0"]);
            line.option("-device", format!("{},max_ports=2", board.device("virtio-serial")));
            line.option("-device", format!("virtserialport,nr=1,chardev=mux,name={PORT_NAME}"));
        }
    }
}

/// The guest's kernel command line; see `guest::settings`.
fn kernel_command_line(board: Board, launch: &Launch) -> String {
    let board = board.kernel_words();
    let transport = launch.transport.name();
    let words = &launch.guest_words;
    // A panic ends the machine at once, and the host boots a new one.
    format!("{board} init=/init panic=-1 loglevel=4 actiond.transport={transport}{words}")
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn words(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|&word| word.to_owned()));
    }

    fn option(&mut self, name: &str, value: String) {
        self.0.push(name.to_owned());
        self.0.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> Launch {
        Launch {
            program: "/usr/bin/qemu-system-x86_64".into(),
            architecture: Architecture::X86_64,
            accelerator: Accelerator::Tcg { parallel: true },
            transport: Transport::Mux,
            memory_mib: 512,
            cpus: 2,
            kernel: "/boot/kernel".into(),
            initramfs: "/boot/initramfs".into(),
            cas_image: "/cas.ext4".into(),
            runtime_image: None,
            guest_words: " actiond.format_cas=1".to_owned(),
        }
    }

    const OPEN: Descriptors = Descriptors {
        kernel: 3,
        initramfs: 4,
        cas_image: Disk { read: 5, write: Some(6) },
        runtime_image: None,
        vhost_vsock: None,
    };

    /// One option and its value a line.
    fn line(launch: &Launch, open: &Descriptors) -> String {
        arguments(launch, open).join(" ").replace(" -", "\n-")
    }

    #[test]
    fn an_emulated_x86_machine() {
        let expected = "\
            -nodefaults\n-no-user-config\n-no-reboot\n-display none\n-monitor none\n\
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny\n\
            -machine q35,usb=off,graphics=off,smm=off,vmport=off\n\
            -accel tcg,thread=multi\n-cpu max\n\
            -global virtio-mmio.force-legacy=false\n-smp 2\n-m 512M\n\
            -kernel /proc/self/fd/3\n-initrd /proc/self/fd/4\n\
            -append console=ttyS0 tsc=unstable no_timer_check actiond.power_off=off init=/init panic=-1 \
            loglevel=4 actiond.transport=mux actiond.format_cas=1\n\
            -chardev socket,id=console,fd=1\n-serial chardev:console\n\
            -add-fd fd=5,set=5\n-add-fd fd=6,set=5\n\
            -drive if=none,id=cas,file=/dev/fdset/5,format=raw,aio=threads,\
            cache=writeback,discard=unmap,werror=report\n\
            -device virtio-blk-pci,drive=cas,serial=cas\n\
            -chardev socket,id=mux,fd=0\n-device virtio-serial-pci,max_ports=2\n\
            -device virtserialport,nr=1,chardev=mux,name=dev.actiond.mux\n\
            -object rng-random,id=rng,filename=/dev/urandom\n-device virtio-rng-pci,rng=rng\n\
            -device virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on";
        assert_eq!(line(&launch(), &OPEN), expected);
    }

    #[test]
    fn an_arm_machine_is_switched_off() {
        let launch = Launch { architecture: Architecture::Aarch64, ..launch() };
        let line = line(&launch, &OPEN);
        assert!(line.contains("-machine virt\n"), "{line}");
        assert!(line.contains("-cpu max,pauth-impdef=on\n"), "{line}");
        assert!(line.contains("-append console=ttyAMA0 actiond.power_off=off "), "{line}");
        assert!(line.contains("-device virtio-blk-device,"), "{line}");
    }

    #[test]
    fn kvm_and_vsock_where_they_are() {
        let launch = Launch {
            accelerator: Accelerator::Kvm,
            transport: Transport::Vsock { cid: 77 },
            guest_words: String::new(),
            ..launch()
        };
        let line = line(&launch, &Descriptors { vhost_vsock: Some(7), ..OPEN });
        assert!(line.contains("-machine microvm,acpi=off,"), "{line}");
        assert!(line.contains("-accel kvm\n-cpu host\n"), "{line}");
        assert!(line.contains(" reboot=t actiond.power_off=reset "), "{line}");
        assert!(line.contains("-device vhost-vsock-device,guest-cid=77,vhostfd=7\n"), "{line}");
        assert!(line.contains("actiond.transport=vsock\n"), "nothing is formatted: {line}");
        assert!(!line.contains("virtserialport"), "{line}");
    }

    #[test]
    fn an_old_emulator_has_one_thread() {
        let launch = Launch { accelerator: Accelerator::Tcg { parallel: false }, ..launch() };
        assert!(line(&launch, &OPEN).contains("-accel tcg,thread=single\n-cpu max\n"));
    }

    #[test]
    fn runtimes_are_read_only() {
        let line = line(
            &launch(),
            &Descriptors { runtime_image: Some(Disk { read: 7, write: None }), ..OPEN },
        );
        assert!(line.contains("id=runtimes,file=/dev/fdset/7,format=raw,aio=threads,readonly=on"));
    }

    #[test]
    fn no_machine_has_a_network() {
        let line = line(&launch(), &OPEN);
        assert!(!line.contains("net"), "{line}");
    }
}
