//! A machine that the framework runs.
//!
//! ```text
//!            start           completion: ok
//!  Stopped ─────────► Starting ──────────► Running ──── guest powers off ──► Stopped
//!                        │                    │                                 │ delegate tells
//!                        │ kill: remembered,  │ kill: stop                      ▼ the end
//!                        └── done on completion ──► Stopping ── completion ──► Stopped
//! ```
//! The states are the framework's. A closure on the machine's queue checks the state and then acts,
//! so the state cannot change in between.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use block2::RcBlock;
use dispatch2::DispatchQueue;
use objc2::AllocAnyThread as _;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSError;
use objc2_virtualization::{
    VZVirtioSocketConnection, VZVirtioSocketDevice, VZVirtioTraditionalMemoryBalloonDevice,
    VZVirtualMachine, VZVirtualMachineConfiguration, VZVirtualMachineState,
};
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use vm::console::LastWords;
use vm::vmm::BoxFuture;
use vm::{ConnectError, Ended, GuestStream, Machine};

use crate::delegate::{Delegate, End, describe};
use crate::error::VzError;
use crate::queue::OnQueue;

/// How long the framework may take over one connection. A guest that listens answers in well under a
/// millisecond; for a port without a listener the framework is documented to do nothing at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The state that lives on the machine's queue.
pub(crate) struct Parts {
    machine: Retained<VZVirtualMachine>,
    socket: Retained<VZVirtioSocketDevice>,
    balloon: Option<Retained<VZVirtioTraditionalMemoryBalloonDevice>>,
    /// The machine's own reference is weak.
    _delegate: Retained<Delegate>,
}

impl Parts {
    /// A machine of a validated configuration, on its queue, not started.
    pub(crate) fn new(
        configuration: &VZVirtualMachineConfiguration,
        queue: &DispatchQueue,
        end: Arc<End>,
    ) -> Result<Self, VzError> {
        // SAFETY: the configuration was validated and is copied; the queue is serial and private to
        // this machine, and this runs on it, as does everything else that touches the machine.
        let machine = unsafe {
            VZVirtualMachine::initWithConfiguration_queue(
                VZVirtualMachine::alloc(),
                configuration,
                queue,
            )
        };
        let delegate = Delegate::new(end);
        // SAFETY: on the machine's queue. The property is weak; `Parts` keeps the delegate.
        unsafe { machine.setDelegate(Some(ProtocolObject::from_ref(&*delegate))) };
        // SAFETY: on the machine's queue.
        let sockets = unsafe { machine.socketDevices() };
        let socket = sockets.firstObject().and_then(|device| device.downcast().ok());
        // SAFETY: on the machine's queue.
        let balloons = unsafe { machine.memoryBalloonDevices() };
        let balloon = balloons.firstObject().and_then(|device| device.downcast().ok());
        let socket = socket.ok_or(VzError::NoSocketDevice)?;
        Ok(Self { machine, socket, balloon, _delegate: delegate })
    }
}

/// A machine that somebody else owns.
pub(crate) struct Handle {
    parts: Arc<OnQueue<Parts>>,
    end: Arc<End>,
    ended: watch::Receiver<Option<Ended>>,
    kill_asked: Arc<AtomicBool>,
    words: Arc<LastWords>,
}

/// A machine, with the tasks that see to it. Dropping it stops both.
pub(crate) struct VzMachine {
    handle: Arc<Handle>,
    tasks: Vec<AbortHandle>,
}

impl VzMachine {
    /// A machine that is not started, whose last words will be in `words`.
    pub(crate) fn new(parts: OnQueue<Parts>, end: Arc<End>, words: Arc<LastWords>) -> Self {
        let ended = end.watch();
        let kill_asked = Arc::new(AtomicBool::new(false));
        let handle = Handle { parts: Arc::new(parts), end, ended, kill_asked, words };
        Self { handle: Arc::new(handle), tasks: Vec::new() }
    }

    /// For those who use it while it lives.
    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// Ends `task` with the machine.
    pub(crate) fn own(&mut self, task: AbortHandle) {
        self.tasks.push(task);
    }
}

impl Drop for VzMachine {
    fn drop(&mut self) {
        self.handle.kill();
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Machine for VzMachine {
    fn connect(&self, port: u32) -> BoxFuture<'_, Result<Box<dyn GuestStream>, ConnectError>> {
        self.handle.connect(port)
    }

    fn ended(&self) -> BoxFuture<'_, Ended> {
        self.handle.ended()
    }

    fn kill(&self) {
        self.handle.kill();
    }
}

impl Handle {
    /// Starts it; returns when it runs. Dropping the future and the machine stops what was started,
    /// however far it has come.
    pub(crate) async fn start(&self) -> Result<(), VzError> {
        let (tell, told) = oneshot::channel();
        let (parts, end) = (Arc::clone(&self.parts), Arc::clone(&self.end));
        let kill_asked = Arc::clone(&self.kill_asked);
        self.parts.run(move |on_queue| {
            let tell = Mutex::new(Some(tell));
            let completed = RcBlock::new(move |error: *mut NSError| {
                // SAFETY: nil, or an error that lives for the call.
                let outcome = match unsafe { error.as_ref() } {
                    None => Ok(()),
                    Some(error) => Err(describe(error)),
                };
                // A kill that came while the machine was starting could not be carried out then.
                if outcome.is_ok() && kill_asked.load(Ordering::Acquire) {
                    stop(&parts, &end);
                }
                if let Some(tell) = tell.lock().take() {
                    // A caller that no longer waits has asked for a kill.
                    let _ = tell.send(outcome);
                }
            });
            // SAFETY: on the machine's queue, in state Stopped, as it is new and started once. The
            // block is copied by the framework, called once, on the same queue; what it captures is
            // owned by it.
            unsafe { on_queue.machine.startWithCompletionHandler(&completed) };
        });
        told.await.map_err(|_| VzError::Lost)?.map_err(VzError::Start)
    }

    /// Makes the guest hand the host all but `target_bytes` of its memory, for as long as nobody
    /// says otherwise.
    pub(crate) fn set_memory_target(&self, target_bytes: u64) {
        self.parts.run(move |parts| {
            if let Some(balloon) = &parts.balloon {
                // SAFETY: on the machine's queue; the framework rounds and clamps the number.
                unsafe { balloon.setTargetVirtualMachineMemorySize(target_bytes) };
            }
        });
    }

    async fn open(&self, port: u32) -> Result<Box<dyn GuestStream>, ConnectError> {
        let refused = |source| ConnectError::Refused { port, source };
        if self.ended.borrow().is_some() {
            return Err(ConnectError::Ended);
        }
        let (tell, told) = oneshot::channel();
        self.parts.run(move |parts| connect(parts, port, tell));
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, told).await;
        let opened = opened.map_err(|_| refused(io::ErrorKind::TimedOut.into()))?;
        // The sender is gone without a word when the framework dropped the block unused.
        let socket = opened.map_err(|_| refused(io::ErrorKind::ConnectionRefused.into()))?;
        let socket = socket.map_err(|error| match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::MFILE) => ConnectError::TooMany,
            _ => refused(error),
        })?;
        // A stream socket; only reading, writing and shutting down is used, the same for all.
        let stream = StdUnixStream::from(socket);
        let nonblocking = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
        Ok(Box::new(nonblocking.map_err(refused)?))
    }
}

impl Machine for Handle {
    fn connect(&self, port: u32) -> BoxFuture<'_, Result<Box<dyn GuestStream>, ConnectError>> {
        Box::pin(self.open(port))
    }

    fn ended(&self) -> BoxFuture<'_, Ended> {
        let mut ended = self.ended.clone();
        Box::pin(async move {
            let description = match ended.wait_for(Option::is_some).await.map(|end| end.clone()) {
                Ok(Some(Ended { description })) => description,
                // Its sender is in `self`.
                _ => "the VM was lost".to_owned(),
            };
            match self.words.summary() {
                Some(words) => {
                    Ended { description: format!("{description}; the guest's last words: {words}") }
                }
                None => Ended { description },
            }
        })
    }

    fn kill(&self) {
        self.kill_asked.store(true, Ordering::Release);
        stop(&self.parts, &self.end);
    }
}

/// Stops the machine as by pulling the plug, if it runs; remembered by the caller if it is starting.
fn stop(parts: &Arc<OnQueue<Parts>>, end: &Arc<End>) {
    let (kept, end) = (Arc::clone(parts), Arc::clone(end));
    parts.run(move |parts| {
        // SAFETY: on the machine's queue.
        let state = unsafe { parts.machine.state() };
        // SAFETY: on the machine's queue.
        if unsafe { parts.machine.canStop() } {
            let completed = RcBlock::new(move |error: *mut NSError| {
                // The machine must live until it is stopped.
                let _ = &kept;
                // SAFETY: nil, or an error that lives for the call.
                match unsafe { error.as_ref() } {
                    None => end.tell("killed"),
                    Some(error) => end.tell(format!("not even stopped: {}", describe(error))),
                }
            });
            // SAFETY: on the machine's queue, in a state that can be stopped. The block is copied
            // by the framework and called once, on the same queue.
            unsafe { parts.machine.stopWithCompletionHandler(&completed) };
        } else if !is_on_its_way(state) {
            end.tell("it did not run");
        }
    });
}

/// Whether a completion handler is still to come, which will tell the end.
fn is_on_its_way(state: VZVirtualMachineState) -> bool {
    state == VZVirtualMachineState::Starting || state == VZVirtualMachineState::Stopping
}

/// Connects to `port` of the guest.
fn connect(parts: &Parts, port: u32, tell: oneshot::Sender<io::Result<OwnedFd>>) {
    let tell = Mutex::new(Some(tell));
    let completed =
        RcBlock::new(move |connection: *mut VZVirtioSocketConnection, error: *mut NSError| {
            // SAFETY: nil, or a connection that lives for the call.
            let connection = unsafe { connection.as_ref() };
            // SAFETY: nil, or an error that lives for the call.
            let error = unsafe { error.as_ref() };
            let outcome = match (connection, error) {
                (Some(connection), _) => take_socket(connection),
                (None, Some(error)) => Err(io::Error::other(describe(error))),
                (None, None) => Err(io::ErrorKind::ConnectionRefused.into()),
            };
            if let Some(tell) = tell.lock().take() {
                // If the caller no longer waits, the error holds the socket, and dropping it closes it.
                let _ = tell.send(outcome);
            }
        });
    // SAFETY: on the machine's queue, which owns the device. The block is copied by the framework
    // and called at most once, on the same queue.
    unsafe { parts.socket.connectToPort_completionHandler(port, &completed) };
}

/// A descriptor of our own for the connection, whose object then lets go of its one: a socket is
/// shut for the guest only when the last descriptor is closed.
fn take_socket(connection: &VZVirtioSocketConnection) -> io::Result<OwnedFd> {
    // SAFETY: a getter; the connection object is the framework's, and lives for the call.
    let descriptor = unsafe { connection.fileDescriptor() };
    if descriptor < 0 {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    // SAFETY: open, and owned by the connection, which does not close it before `close` below.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let ours = rustix::io::fcntl_dupfd_cloexec(borrowed, 0);
    // SAFETY: closes the object's own descriptor; `borrowed` is not used after this.
    unsafe { connection.close() };
    Ok(ours?)
}
