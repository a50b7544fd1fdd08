//! The way in: boots machines, and sees to their memory.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use objc2_virtualization::{VZVirtualMachine, VZVirtualMachineConfiguration};
use tokio::net::unix::pipe;
use vm::console::{LastWords, log_lines};
use vm::control::Client;
use vm::vmm::BoxFuture;
use vm::{Boot, Machine, StartError, Vmm};

use crate::balloon::{Pressure, squeezed_bytes};
use crate::configuration::configure;
use crate::delegate::End;
use crate::error::VzError;
use crate::image;
use crate::machine::{Handle, Parts, VzMachine};
use crate::plan::{HostLimits, plan};
use crate::pressure::PressureSource;
use crate::queue::OnQueue;

/// The name of a machine's queue, as debuggers show it.
const QUEUE_LABEL: &str = "dev.actiond.vm";

/// The time that a squeezed guest stays small. Its driver hands over a gigabyte in about a second.
const SQUEEZE_TIME: Duration = Duration::from_secs(5);

/// The least time between two squeezes: each takes the guest's caches, which then fill again.
const SQUEEZE_PAUSE: Duration = Duration::from_secs(60);

/// Boots machines with Virtualization.framework.
#[derive(Debug, Default)]
pub struct VzVmm;

impl Vmm for VzVmm {
    fn name(&self) -> &'static str {
        "Virtualization.framework"
    }

    fn start<'a>(&'a self, boot: &'a Boot) -> BoxFuture<'a, Result<Arc<dyn Machine>, StartError>> {
        Box::pin(async move {
            let machine = start(boot).await.map_err(|error| StartError(Box::new(error)))?;
            Ok(Arc::new(machine) as Arc<dyn Machine>)
        })
    }
}

/// Whether this host can run machines at all.
pub fn is_supported() -> bool {
    // SAFETY: a class method without conditions, on any thread.
    unsafe { VZVirtualMachine::isSupported() }
}

/// The framework's limits on this host.
pub fn host_limits() -> HostLimits {
    // SAFETY: class methods without conditions, on any thread; so are the three below.
    let least_cpus = unsafe { VZVirtualMachineConfiguration::minimumAllowedCPUCount() };
    // SAFETY: as above.
    let most_cpus = unsafe { VZVirtualMachineConfiguration::maximumAllowedCPUCount() };
    // SAFETY: as above.
    let least_bytes = unsafe { VZVirtualMachineConfiguration::minimumAllowedMemorySize() };
    // SAFETY: as above.
    let most_bytes = unsafe { VZVirtualMachineConfiguration::maximumAllowedMemorySize() };
    HostLimits { cpus: least_cpus..=most_cpus, memory_bytes: least_bytes..=most_bytes }
}

async fn start(boot: &Boot) -> Result<VzMachine, VzError> {
    if !is_supported() {
        return Err(VzError::Unsupported);
    }
    let limits = host_limits();
    let plan = plan(boot, &limits)?;
    let memory_bytes = plan.memory_bytes;
    let (console, writer) = console()?;
    let end = End::new();
    let making = tokio::task::spawn_blocking({
        let end = Arc::clone(&end);
        move || {
            image::check(&plan)?;
            let made = OnQueue::new(QUEUE_LABEL, |queue| {
                Parts::new(&*configure(&plan, writer)?, queue, end)
            });
            made.map_err(|error| error.unwrap_or(VzError::Lost))
        }
    });
    let parts = making.await.map_err(|_| VzError::Lost)??;
    let words = Arc::new(LastWords::new());
    let console = tokio::spawn({
        let words = Arc::clone(&words);
        async move { log_lines(console, &words, log_guest).await }
    });
    let mut machine = VzMachine::new(parts, end, words);
    machine.own(console.abort_handle());
    machine.handle().start().await?;
    let relief = relieve(Arc::clone(machine.handle()), memory_bytes, limits.memory_bytes);
    machine.own(tokio::spawn(relief).abort_handle());
    Ok(machine)
}

/// Both ends of the guest's console: ours, and the framework's.
fn console() -> Result<(pipe::Receiver, OwnedFd), VzError> {
    let (reader, writer) = io::pipe().map_err(VzError::Console)?;
    let reader = pipe::Receiver::from_owned_fd(reader.into()).map_err(VzError::Console)?;
    Ok((reader, writer.into()))
}

fn log_guest(line: &str) {
    tracing::info!(target: "guest", "{line}");
}

/// Squeezes the guest each time the host's memory gets short, for as long as it is polled.
async fn relieve(machine: Arc<Handle>, memory_bytes: u64, allowed: RangeInclusive<u64>) {
    let (_source, mut pressure) = PressureSource::new();
    let control = Client::new();
    while pressure.wait_for(|pressure| *pressure == Pressure::Short).await.is_ok() {
        squeeze(&machine, &control, memory_bytes, &allowed).await;
        tokio::time::sleep(SQUEEZE_PAUSE).await;
    }
}

/// Has the guest drop its caches, takes most of what is then free, and lets go again.
async fn squeeze(
    machine: &Handle,
    control: &Client,
    memory_bytes: u64,
    allowed: &RangeInclusive<u64>,
) {
    let free_bytes = match control.memory_pressure(machine, memory_bytes).await {
        Ok(memory) => memory.free_bytes,
        Err(error) => {
            return tracing::warn!(%error, "memory is short, and the guest does not answer");
        }
    };
    let Some(target_bytes) = squeezed_bytes(memory_bytes, free_bytes, allowed) else { return };
    tracing::info!(
        from_mib = memory_bytes >> 20,
        to_mib = target_bytes >> 20,
        "memory is short: the guest hands over what it does not use"
    );
    machine.set_memory_target(target_bytes);
    tokio::time::sleep(SQUEEZE_TIME).await;
    machine.set_memory_target(memory_bytes);
}
