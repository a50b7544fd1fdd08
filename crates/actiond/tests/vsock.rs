//! The guest behind vsock, which is how a Mac reaches it, on a machine without `/dev/vhost-vsock`.
//!
//! `vhost-device-vsock`, a program of the rust-vmm project, gives QEMU a vsock device and us a Unix
//! socket in the place of the host's own vsock: who writes `CONNECT port` to it is connected to that
//! port of the guest. Behind a [`Vmm`] of these two is everything that hosts have in common.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use testkit::vm::{INITRAMFS, KERNEL};
use testkit::{Client, Kit, Outcome, skip};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::oneshot;
use vm::bridge::Bridge;
use vm::supervisor::{Supervisor, Timeouts};
use vm::vmm::BoxFuture;
use vm::{Boot, ConnectError, Ended, GuestStream, Machine, StartError, Vmm};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_guest_serves_over_vsock_and_stops_when_asked,
}

/// Where `vhost-device-vsock` is.
const DEVICE: &str = "ACTIOND_TEST_VHOST_DEVICE_VSOCK";

/// A shell with all its tools in one static program.
const BUSYBOX: &str = "/bin/busybox";

/// The guest's console, for the case that it does not serve.
const CONSOLE: &str = "console";

const DISK_BYTES: u64 = 1 << 30;

/// The guest's context id: any that no other VM of this device has.
const CID: u32 = 3;

/// The interval at which the VM is checked.
const LOOK: Duration = Duration::from_millis(20);

/// As long as the kernel's own vsock waits (vsock(7)).
const CONNECTING: Duration = Duration::from_secs(2);

async fn a_guest_serves_over_vsock_and_stops_when_asked(_kit: Kit) -> Outcome {
    if !cfg!(target_arch = "x86_64") {
        return skip("the machine here is x86's");
    }
    let Some([device, kernel, initramfs]) = variables([DEVICE, KERNEL, INITRAMFS]) else {
        return skip(format!("{DEVICE}, {KERNEL} or {INITRAMFS} is not set"));
    };
    let directory = tempfile::tempdir()?;
    let boot = boot(directory.path(), kernel, &initramfs)?;
    let vmm = DeviceVmm { device, directory: directory.path().to_owned() };
    let patience = Duration::from_secs(60);
    let timeouts = Timeouts { start: patience, connect: patience };
    let supervisor = Supervisor::new(Arc::new(vmm), boot, timeouts);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = Client::new(listener.local_addr()?);
    let bridge = Bridge::new(listener, supervisor.guest(), patience);
    let (stop, stopping) = oneshot::channel::<()>();
    let mut supervised = tokio::spawn(supervisor.run(async move { drop(stopping.await) }));
    let bridged = tokio::spawn(bridge.serve());
    tokio::select! {
        carried = run_and_carry(&client) => carried?,
        ended = &mut supervised => {
            let console = std::fs::read_to_string(directory.path().join(CONSOLE))?;
            anyhow::bail!("the guest has ended: {ended:?}\n{console}");
        }
    }
    drop(stop);
    supervised.await??;
    bridged.abort();
    Ok(())
}

fn variables<const N: usize>(names: [&str; N]) -> Option<[PathBuf; N]> {
    let values: Option<Vec<_>> =
        names.into_iter().map(|name| std::env::var_os(name).map(PathBuf::from)).collect();
    values?.try_into().ok()
}

fn boot(directory: &Path, kernel: PathBuf, initramfs: &Path) -> anyhow::Result<Boot> {
    let unpacked = directory.join("initramfs.cpio");
    let packed = std::fs::read(initramfs)?;
    std::fs::write(&unpacked, zstd::decode_all(&packed[..])?)?;
    let cas_image = directory.join("cas.ext4");
    std::fs::File::create(&cas_image)?.set_len(DISK_BYTES)?;
    Ok(Boot {
        kernel,
        initramfs: unpacked,
        cas_image,
        format_cas: true,
        runtime_image: None,
        memory_mib: 768,
        cpus: 2,
        worker_flags: Vec::new(),
    })
}

async fn run_and_carry(client: &Client) -> Outcome {
    let busybox = std::fs::read(BUSYBOX).with_context(|| BUSYBOX.to_owned())?;
    let script = "./busybox cat in > out";
    let action = client.bare_action(["./busybox", "sh", "-c", script]);
    let run = action.executable("busybox", busybox).input("in", "hi").output("out").run().await?;
    ensure!(run.succeeded().await?.file("out").await? == "hi");
    // More than the device's own buffers.
    let large: Vec<u8> = (0..8_u32 << 20).map(|at| (at ^ (at >> 11)) as u8).collect();
    let digest = client.digest(&large);
    client.write(&client.upload_name(&digest), &large, 1 << 20).await?;
    ensure!(client.get(&digest).await? == large);
    Ok(())
}

/// Boots QEMU beside a `vhost-device-vsock`.
struct DeviceVmm {
    device: PathBuf,
    directory: PathBuf,
}

impl DeviceVmm {
    fn start(&self, boot: &Boot) -> std::io::Result<DeviceMachine> {
        let (control, connections) = (self.directory.join("control"), self.directory.join("vsock"));
        let vm = format!(
            "guest-cid={CID},socket={},uds-path={}",
            control.display(),
            connections.display()
        );
        let device = Command::new(&self.device).arg("--vm").arg(vm).stdin(Stdio::null()).spawn()?;
        let device = Running(Mutex::new(device));
        // QEMU connects once, so the device must be there.
        while !control.exists() && device.status()?.is_none() {
            std::thread::sleep(LOOK);
        }
        let qemu = Running(Mutex::new(qemu(boot, &control).spawn()?));
        Ok(DeviceMachine { qemu, _device: device, connections })
    }
}

fn qemu(boot: &Boot, control: &Path) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    qemu.args(["-machine", "q35,memory-backend=memory", "-accel", "tcg,thread=single"]);
    qemu.args(["-cpu", "max", "-smp", &boot.cpus.to_string()]);
    qemu.args(["-m", &format!("{}M", boot.memory_mib)]);
    // The device reads the guest's memory, which is therefore shared.
    let memory = format!("memory-backend-memfd,id=memory,size={}M,share=on", boot.memory_mib);
    qemu.args(["-object", &memory]);
    qemu.arg("-kernel").arg(&boot.kernel).arg("-initrd").arg(&boot.initramfs);
    let line = format!("console=ttyS0 tsc=unstable init=/init panic=-1{}", boot.guest_words());
    qemu.args(["-append", &line, "-serial"]);
    qemu.arg(format!("file:{}", control.with_file_name(CONSOLE).display()));
    let disk = format!("if=none,id=cas,format=raw,file={}", boot.cas_image.display());
    qemu.args(["-drive", &disk, "-device", "virtio-blk-pci,drive=cas"]);
    qemu.args(["-chardev", &format!("socket,id=vsock,path={}", control.display())]);
    qemu.args(["-device", "vhost-user-vsock-pci,chardev=vsock"]);
    qemu.stdin(Stdio::null());
    qemu
}

impl Vmm for DeviceVmm {
    fn name(&self) -> &'static str {
        "qemu with vhost-device-vsock"
    }

    fn start<'a>(&'a self, boot: &'a Boot) -> BoxFuture<'a, Result<Arc<dyn Machine>, StartError>> {
        Box::pin(async {
            let machine = self.start(boot).map_err(|error| StartError(Box::new(error)))?;
            Ok(Arc::new(machine) as Arc<dyn Machine>)
        })
    }
}

struct DeviceMachine {
    qemu: Running,
    // Ends after QEMU.
    _device: Running,
    connections: PathBuf,
}

impl Machine for DeviceMachine {
    fn connect(&self, port: u32) -> BoxFuture<'_, Result<Box<dyn GuestStream>, ConnectError>> {
        Box::pin(async move {
            let refused = |source| ConnectError::Refused { port, source };
            // While the guest boots, the device says nothing.
            let stream = tokio::time::timeout(CONNECTING, connect(&self.connections, port)).await;
            let stream = stream.map_err(|elapsed| refused(elapsed.into()))?.map_err(refused)?;
            Ok(Box::new(stream) as Box<dyn GuestStream>)
        })
    }

    fn ended(&self) -> BoxFuture<'_, Ended> {
        Box::pin(async {
            loop {
                match self.qemu.status() {
                    Ok(None) => tokio::time::sleep(LOOK).await,
                    ended => return Ended { description: format!("{ended:?}") },
                }
            }
        })
    }

    fn kill(&self) {
        self.qemu.kill();
    }
}

/// The device's answer begins with `OK` when the guest has taken the connection.
async fn connect(connections: &Path, port: u32) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(connections).await?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    while stream.read_u8().await? != b'\n' {}
    Ok(stream)
}

/// A process that is killed when nobody holds it any more.
struct Running(Mutex<Child>);

impl Running {
    fn status(&self) -> std::io::Result<Option<std::process::ExitStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).try_wait()
    }

    fn kill(&self) {
        // An error means that it has ended.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).wait();
    }
}
