use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::*;
use crate::supervisor::{SuperviseError, Supervisor, Timeouts};
use crate::testing::{FakeMachine, FakeVmm, Script, boot};
use crate::vmm::Vmm;

struct Bridged {
    address: SocketAddr,
    machines: mpsc::UnboundedReceiver<Arc<FakeMachine>>,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<Result<(), SuperviseError>>,
    connections: Connections,
}

/// A bridge in front of a guest by those scripts; clients wait for it for `patience`.
async fn bridge(scripts: &[Script], patience: Duration) -> Bridged {
    let (vmm, machines) = FakeVmm::new(scripts);
    let timeouts = Timeouts { start: patience, connect: patience };
    let supervisor = Supervisor::new(vmm as Arc<dyn Vmm>, boot(), timeouts);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bridge = Bridge::new(listener, supervisor.guest(), patience);
    let connections = bridge.connections();
    let (stop, stopping) = oneshot::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(supervisor.run(async move { drop(stopping.await) }));
    tasks.spawn(async move { match bridge.serve().await {} });
    Bridged { address, machines, stop: Some(stop), tasks, connections }
}

const PATIENCE: Duration = Duration::from_secs(300);

impl Bridged {
    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A client and the guest's end of its connection.
    async fn connection(&mut self) -> (TcpStream, UnixStream, Arc<FakeMachine>) {
        let client = self.client().await;
        let machine = self.machines.recv().await.unwrap();
        let far = machine.accept().await;
        (client, far, machine)
    }
}

/// All bytes up to the end, be it in order or not.
async fn rest(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes).await;
    bytes
}

#[tokio::test]
async fn bytes_and_half_closes_pass_both_ways() {
    let mut bridged = bridge(&[Script::Serve], PATIENCE).await;
    let (mut client, mut far, _machine) = bridged.connection().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    far.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    // The other half is still open.
    far.write_all(b"answer").await.unwrap();
    drop(far);
    assert_eq!(rest(&mut client).await, b"answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_the_writer_back() {
    let mut bridged = bridge(&[Script::Serve], PATIENCE).await;
    let (mut client, mut far, _machine) = bridged.connection().await;
    const LENGTH: usize = 64 << 20;
    let writer = tokio::spawn(async move {
        let portion = vec![7; 1 << 20];
        for _ in 0..LENGTH / portion.len() {
            client.write_all(&portion).await.unwrap();
        }
        client.shutdown().await.unwrap();
        client
    });
    // All that may be on its way is in socket buffers and in ours.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!writer.is_finished());
    let mut received = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match far.read(&mut buffer).await.unwrap() {
            0 => break,
            read => received += read,
        }
    }
    assert_eq!(received, LENGTH);
    writer.await.unwrap();
}

#[tokio::test]
async fn a_client_waits_for_the_guest_to_come_back() {
    let mut bridged = bridge(&[Script::Serve], PATIENCE).await;
    let (mut client, _far, machine) = bridged.connection().await;
    machine.end("a crash");
    assert_eq!(rest(&mut client).await, b"", "what was open is closed");
    let mut client = bridged.client().await;
    client.write_all(b"again").await.unwrap();
    client.shutdown().await.unwrap();
    let machine = bridged.machines.recv().await.unwrap();
    let mut again = Vec::new();
    machine.accept().await.read_to_end(&mut again).await.unwrap();
    assert_eq!(again, b"again");
}

#[tokio::test]
async fn without_a_guest_clients_are_closed() {
    let bridged = bridge(&[Script::FailToStart], PATIENCE).await;
    assert_eq!(rest(&mut bridged.client().await).await, b"");
    let mut bridged = bridge(&[Script::Serve], PATIENCE).await;
    let (mut client, _far, _machine) = bridged.connection().await;
    bridged.stop.take().unwrap().send(()).unwrap();
    assert_eq!(rest(&mut client).await, b"");
    assert_eq!(rest(&mut bridged.client().await).await, b"");
    bridged.tasks.abort_all();
}

#[tokio::test]
async fn patience_with_a_silent_guest_ends() {
    let bridged = bridge(&[Script::Silent], Duration::from_millis(200)).await;
    assert_eq!(rest(&mut bridged.client().await).await, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_at_once() {
    let mut bridged = bridge(&[Script::Serve], PATIENCE).await;
    let (_first, _far, machine) = bridged.connection().await;
    let echo = tokio::spawn(async move {
        loop {
            let (mut read, mut write) = machine.accept().await.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
        }
    });
    let mut clients = Vec::new();
    for number in 0..1000_u32 {
        let mut client = bridged.client().await;
        client.write_all(&number.to_le_bytes()).await.unwrap();
        clients.push(client);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(u32::from_le_bytes(answer) as usize, number);
    }
    echo.abort();
}

#[tokio::test]
async fn the_end_of_connections_can_be_waited_for() {
    let mut bridged = bridge(&[Script::Serve], PATIENCE).await;
    let (client, _far, machine) = bridged.connection().await;
    bridged.tasks.shutdown().await;
    // The clock must not be paused: a paused clock jumps ahead whenever the runtime waits for a socket.
    tokio::select! {
        biased;
        () = bridged.connections.ended() => panic!("one is still open"),
        () = tokio::task::yield_now() => {}
    }
    machine.end("a crash");
    bridged.connections.ended().await;
    drop(client);
}
