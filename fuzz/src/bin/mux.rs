//! Many connections over one stream: both ends take any bytes of the other.
#![no_main]

use fuzz::block_on;
use libfuzzer_sys::fuzz_target;
use vm::{CONTROL_PORT, GRPC_PORT, mux};

const PORTS: &[u32] = &[CONTROL_PORT, GRPC_PORT];

fuzz_target!(|input: &[u8]| {
    block_on(async {
        let stream = tokio::io::join(std::io::Cursor::new(input.to_vec()), tokio::io::sink());
        let (mut acceptor, guest) = mux::guest(stream, PORTS);
        let _ = guest.await;
        while let Some((port, _)) = acceptor.accept().await {
            assert!(PORTS.contains(&port), "port {port}");
        }
        let stream = tokio::io::join(std::io::Cursor::new(input.to_vec()), tokio::io::sink());
        let (opener, host) = mux::host(stream);
        let open = async move { opener.open(GRPC_PORT).await.is_ok() };
        let (_, _) = tokio::join!(host, open);
    });
});
