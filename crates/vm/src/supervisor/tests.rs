use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::*;
use crate::testing::{FakeMachine, FakeVmm, Script, boot};
use crate::vmm::{BoxFuture, Machine as _};

struct Supervised {
    vmm: Arc<FakeVmm>,
    machines: mpsc::UnboundedReceiver<Arc<FakeMachine>>,
    guest: watch::Receiver<Guest>,
    stop: oneshot::Sender<()>,
    done: JoinHandle<Result<(), SuperviseError>>,
}

/// A supervisor that waits longer for a guest than any of these takes on a busy machine.
fn supervise(scripts: &[Script]) -> Supervised {
    supervise_for(scripts, Duration::from_secs(300))
}

/// A supervisor that waits for so long until a guest answers.
fn supervise_for(scripts: &[Script], connect: Duration) -> Supervised {
    let (vmm, machines) = FakeVmm::new(scripts);
    let timeouts = Timeouts { start: Duration::from_secs(300), connect };
    let supervisor = Supervisor::new(Arc::clone(&vmm) as Arc<dyn Vmm>, boot(), timeouts);
    let guest = supervisor.guest();
    let (stop, stopping) = oneshot::channel();
    let done = tokio::spawn(supervisor.run(async move { drop(stopping.await) }));
    Supervised { vmm, machines, guest, stop, done }
}

impl Supervised {
    async fn ready(&mut self) -> Arc<Running> {
        let ready = self.guest.wait_for(|guest| matches!(guest, Guest::Ready(_))).await.unwrap();
        let Guest::Ready(running) = &*ready else { unreachable!("waited for") };
        Arc::clone(running)
    }

    async fn stop(self) -> Result<(), SuperviseError> {
        self.stop.send(()).unwrap();
        self.done.await.unwrap()
    }
}

#[tokio::test]
async fn a_guest_is_ready_when_it_knows_the_time_and_stops_when_asked() {
    let mut supervised = supervise(&[Script::Serve]);
    supervised.ready().await;
    let machine = supervised.machines.recv().await.unwrap();
    assert!(machine.times_told() >= 1);
    let guest = supervised.guest.clone();
    supervised.stop().await.unwrap();
    assert_eq!(ended(&machine).await, "as asked");
    assert!(matches!(*guest.borrow(), Guest::Stopped));
}

async fn ended(machine: &FakeMachine) -> String {
    let ended: BoxFuture<'_, _> = machine.ended();
    ended.await.description
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_stop_is_killed() {
    let mut supervised = supervise(&[Script::Stubborn]);
    supervised.ready().await;
    let machine = supervised.machines.recv().await.unwrap();
    supervised.stop().await.unwrap();
    assert_eq!(ended(&machine).await, "killed");
}

#[tokio::test]
async fn a_guest_that_goes_away_comes_back_with_its_disk() {
    let mut supervised = supervise(&[Script::Serve]);
    supervised.ready().await;
    supervised.machines.recv().await.unwrap().end("a crash");
    supervised.guest.wait_for(|guest| matches!(guest, Guest::Booting)).await.unwrap();
    supervised.ready().await;
    let booted = supervised.vmm.booted();
    assert_eq!(booted.len(), 2);
    assert_eq!(booted[0].cas_image, booted[1].cas_image);
    assert!(booted[0].format_cas && !booted[1].format_cas, "a disk in use is never formatted");
    supervised.stop().await.unwrap();
}

#[tokio::test]
async fn a_first_boot_that_fails_is_an_error_with_its_cause() {
    let check = |script, expected: &'static str| async move {
        // A guest that never answers is given up soon.
        let connect = Duration::from_secs(if script == Script::Silent { 0 } else { 300 });
        let error = supervise_for(&[script], connect).done.await.unwrap().unwrap_err();
        let text = chain::Chain(&error).to_string();
        assert!(text.contains(expected), "{text}");
    };
    check(Script::FailToStart, "no such luck").await;
    check(Script::EndBooting, "the VM ended while booting: it ends itself").await;
    check(Script::Silent, "did not answer within").await;
}

#[tokio::test(start_paused = true)]
async fn restarts_are_bounded() {
    let mut supervised = supervise(&[Script::Serve, Script::FailToStart]);
    supervised.ready().await;
    supervised.machines.recv().await.unwrap().end("a crash");
    let error = supervised.done.await.unwrap().unwrap_err();
    assert!(matches!(error, SuperviseError::GaveUp(11)), "{error}");
    assert_eq!(supervised.vmm.booted().len(), 11);
    assert!(matches!(*supervised.guest.borrow(), Guest::Stopped));
}

#[tokio::test]
async fn a_boot_can_be_called_off() {
    let mut supervised = supervise(&[Script::Silent]);
    let machine = supervised.machines.recv().await.unwrap();
    supervised.stop().await.unwrap();
    drop(machine);
}

#[tokio::test]
async fn the_guest_answers_questions() {
    let mut supervised = supervise(&[Script::Serve]);
    let running = supervised.ready().await;
    let (control, machine) = (&running.control, &*running.machine);
    assert_eq!(control.actiondfs_stats(machine).await.unwrap(), b"lookups 7\n");
    let released = control.memory_pressure(machine, 5).await.unwrap();
    assert_eq!((released.free_bytes, released.total_bytes), (5, 10));
    let refused = control.memory_pressure(machine, 0).await.unwrap_err();
    assert!(refused.to_string().ends_with("failed in the guest: nothing is wanted"), "{refused}");
    supervised.stop().await.unwrap();
}
