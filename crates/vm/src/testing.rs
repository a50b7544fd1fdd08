//! A VMM without a machine: its guest is a task at the other end of socket pairs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use crate::control::{self, MemoryRelease, ReleasedMemory, SetTime, TimeSet};
use crate::vmm::{Boot, BoxFuture, ConnectError, Ended, GuestStream, Machine, StartError, Vmm};
use crate::{CONTROL_PORT, GRPC_PORT};

/// The behaviour of a machine from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// Boots, serves, stops when asked.
    Serve,
    /// The VMM can't start it.
    FailToStart,
    /// Ends before it answers.
    EndBooting,
    /// Runs and never answers.
    Silent,
    /// Boots, serves, ignores that it should stop.
    Stubborn,
}

/// Starts machines by scripts, the last of which is repeated.
pub(crate) struct FakeVmm {
    scripts: Mutex<VecDeque<Script>>,
    booted: Mutex<Vec<Boot>>,
    machines: mpsc::UnboundedSender<Arc<FakeMachine>>,
}

impl FakeVmm {
    /// The VMM, and its machines as it starts them.
    pub(crate) fn new(
        scripts: &[Script],
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Arc<FakeMachine>>) {
        let (machines, started) = mpsc::unbounded_channel();
        let scripts = Mutex::new(scripts.iter().copied().collect());
        (Arc::new(Self { scripts, booted: Mutex::default(), machines }), started)
    }

    /// The machines booted so far.
    pub(crate) fn booted(&self) -> Vec<Boot> {
        self.booted.lock().clone()
    }
}

impl Vmm for FakeVmm {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn start<'a>(&'a self, boot: &'a Boot) -> BoxFuture<'a, Result<Arc<dyn Machine>, StartError>> {
        Box::pin(async move {
            self.booted.lock().push(boot.clone());
            let mut scripts = self.scripts.lock();
            let script = if scripts.len() > 1 { scripts.pop_front() } else { scripts[0].into() };
            let script = script.expect("there is a script");
            if script == Script::FailToStart {
                return Err(StartError("no such luck".into()));
            }
            let machine = Arc::new(FakeMachine::new(script));
            if script == Script::EndBooting {
                machine.end("it ends itself");
            }
            let _ = self.machines.send(Arc::clone(&machine));
            Ok(machine as Arc<dyn Machine>)
        })
    }
}

/// A machine whose gRPC port hands out the far ends of its connections.
pub(crate) struct FakeMachine {
    script: Script,
    ended: watch::Sender<Option<Ended>>,
    handler: Arc<FakeHandler>,
    accept: mpsc::UnboundedSender<UnixStream>,
    /// The guest's ends of connections to the gRPC port.
    pub(crate) accepted: tokio::sync::Mutex<mpsc::UnboundedReceiver<UnixStream>>,
}

impl FakeMachine {
    fn new(script: Script) -> Self {
        let (accept, accepted) = mpsc::unbounded_channel();
        let ended = watch::Sender::new(None);
        let stop = (script != Script::Stubborn).then(|| ended.clone());
        let handler = Arc::new(FakeHandler { stop, calls: AtomicU32::new(0) });
        Self { script, ended, handler, accept, accepted: accepted.into() }
    }

    /// Ends the machine.
    pub(crate) fn end(&self, description: &str) {
        let description = description.to_owned();
        self.ended.send_if_modified(|ended| match ended {
            Some(_) => false,
            None => ended.replace(Ended { description }).is_none(),
        });
    }

    /// The guest's end of the next connection to its gRPC port.
    pub(crate) async fn accept(&self) -> UnixStream {
        self.accepted.lock().await.recv().await.expect("the machine keeps the sender")
    }

    /// The number of times that the clock was set.
    pub(crate) fn times_told(&self) -> u32 {
        self.handler.calls.load(Ordering::Relaxed)
    }

    fn open(&self, port: u32) -> Result<Box<dyn GuestStream>, ConnectError> {
        let failed = |source| ConnectError::Refused { port, source };
        if self.ended.borrow().is_some() {
            return Err(ConnectError::Ended);
        }
        let (near, mut far) = UnixStream::pair().map_err(failed)?;
        match (port, self.script) {
            (_, Script::Silent) => drop(tokio::spawn(async move {
                // Held open, never answered.
                std::future::pending::<()>().await;
                drop(far.shutdown().await);
            })),
            (GRPC_PORT, _) => drop(self.accept.send(far)),
            (CONTROL_PORT, _) => {
                let handler = Arc::clone(&self.handler);
                tokio::spawn(async move {
                    let _ = control::serve_connection(&mut far, &*handler).await;
                });
            }
            _ => return Err(failed(std::io::ErrorKind::ConnectionRefused.into())),
        }
        Ok(Box::new(near))
    }
}

impl Machine for FakeMachine {
    fn connect(&self, port: u32) -> BoxFuture<'_, Result<Box<dyn GuestStream>, ConnectError>> {
        Box::pin(async move { self.open(port) })
    }

    fn ended(&self) -> BoxFuture<'_, Ended> {
        let mut ended = self.ended.subscribe();
        Box::pin(async move {
            let ended = ended.wait_for(Option::is_some).await.expect("the sender is in self");
            ended.clone().expect("waited for")
        })
    }

    fn kill(&self) {
        self.end("killed");
    }
}

/// The guest's side of the control protocol.
struct FakeHandler {
    stop: Option<watch::Sender<Option<Ended>>>,
    calls: AtomicU32,
}

impl control::Handler for FakeHandler {
    async fn actiondfs_stats(&self) -> Result<Vec<u8>, String> {
        Ok(b"lookups 7\n".to_vec())
    }

    async fn shutdown(&self) -> Result<(), String> {
        let Some(stop) = self.stop.clone() else { return Ok(()) };
        tokio::spawn(async move {
            // After the answer.
            tokio::time::sleep(Duration::from_millis(10)).await;
            stop.send_replace(Some(Ended { description: "as asked".to_owned() }));
        });
        Ok(())
    }

    async fn set_time(&self, _: SetTime) -> Result<TimeSet, String> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(TimeSet { moved_ns: 0 })
    }

    async fn memory_pressure(&self, request: MemoryRelease) -> Result<ReleasedMemory, String> {
        match request.wanted_bytes {
            0 => Err("nothing is wanted".to_owned()),
            wanted => Ok(ReleasedMemory { free_bytes: wanted, total_bytes: 2 * wanted }),
        }
    }
}

/// A boot of nothing.
pub(crate) fn boot() -> Boot {
    Boot {
        kernel: "/kernel".into(),
        initramfs: "/initramfs".into(),
        cas_image: "/cas".into(),
        format_cas: true,
        worker_flags: Vec::new(),
        runtime_image: None,
        memory_mib: 512,
        cpus: 2,
    }
}
