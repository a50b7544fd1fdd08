use tokio::task::{JoinHandle, JoinSet};

use super::*;

/// Host and guest with `bytes` of pipe between them.
struct Pair {
    opener: Opener,
    acceptor: Acceptor,
    host: JoinHandle<io::Result<()>>,
    _guest: JoinHandle<io::Result<()>>,
}

fn pair(bytes: usize) -> Pair {
    let (near, far) = tokio::io::duplex(bytes);
    let (opener, host) = host(near);
    let (acceptor, guest) = guest(far, &[1, 5001]);
    Pair { opener, acceptor, host: tokio::spawn(host), _guest: tokio::spawn(guest) }
}

/// A generator of numbers below a bound: tests must be repeatable, and that is all.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Sends every byte back until the end, then ends as well.
async fn echo(stream: MuxStream) {
    let (mut read, mut write) = tokio::io::split(stream);
    tokio::io::copy(&mut read, &mut write).await.unwrap();
    write.shutdown().await.unwrap();
}

async fn echo_all(mut acceptor: Acceptor) {
    while let Some((_, stream)) = acceptor.accept().await {
        tokio::spawn(echo(stream));
    }
}

#[tokio::test]
async fn a_connection_knows_its_port_and_keeps_half_closes() {
    let mut pair = pair(4096);
    let mut near = pair.opener.open(5001).await.unwrap();
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let (port, mut far) = pair.acceptor.accept().await.unwrap();
    assert_eq!(port, 5001);
    let mut question = Vec::new();
    far.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
}

/// One exchange of `length` bytes in random portions, with random pauses on both sides.
async fn exchange(opener: Opener, seed: u64, length: usize) {
    let stream = opener.open(1).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..length).map(|at| (at as u64 ^ seed) as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        let mut random = Random(seed | 1);
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let portion = (1 + random.below(20_000) as usize).min(rest.len());
            write.write_all(&rest[..portion]).await.unwrap();
            rest = &rest[portion..];
            pause(&mut random).await;
        }
        write.shutdown().await.unwrap();
    });
    let mut random = Random(seed.rotate_left(17) | 1);
    let mut received = Vec::new();
    let mut portion = vec![0; 50_000];
    loop {
        let wanted = 1 + random.below(50_000) as usize;
        match read.read(&mut portion[..wanted]).await.unwrap() {
            0 => break,
            read => received.extend_from_slice(&portion[..read]),
        }
        pause(&mut random).await;
    }
    writer.await.unwrap();
    assert!(received == expected, "connection {seed}: {} of {length} bytes", received.len());
}

async fn pause(random: &mut Random) {
    match random.below(8) {
        0 => tokio::time::sleep(Duration::from_micros(random.below(500))).await,
        1..4 => tokio::task::yield_now().await,
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_interleavings_keep_every_byte() {
    let mut random = Random(0x5eed);
    for pipe_bytes in [13, 4096, 300_000] {
        let pair = pair(pipe_bytes);
        let echo = tokio::spawn(echo_all(pair.acceptor));
        let mut exchanges = JoinSet::new();
        for seed in 1..=24 {
            let longest = if pipe_bytes == 13 { 2000 } else { 700_000 };
            exchanges.spawn(exchange(pair.opener.clone(), seed, random.below(longest) as usize));
        }
        while let Some(outcome) = exchanges.join_next().await {
            outcome.unwrap();
        }
        pair.host.abort();
        echo.abort();
    }
}

#[tokio::test]
async fn a_reader_that_stands_still_holds_up_nobody() {
    let mut pair = pair(4096);
    let mut stuck = pair.opener.open(1).await.unwrap();
    let (_, unread) = pair.acceptor.accept().await.unwrap();
    // More than the window: the rest has to wait on the sender's side.
    let writer = tokio::spawn(async move { stuck.write_all(&vec![0; 4 * WINDOW_BYTES]).await });
    let echo = tokio::spawn(echo_all(pair.acceptor));
    exchange(pair.opener.clone(), 7, 2_000_000).await;
    assert!(!writer.is_finished(), "the window bounds what a stuck reader makes us hold");
    drop(unread);
    assert!(writer.await.unwrap().is_err(), "a reset connection can't be written to");
    echo.abort();
}

#[tokio::test]
async fn connections_end_with_the_stream() {
    let mut pair = pair(4096);
    let near = pair.opener.open(1).await.unwrap();
    let (_, mut far) = pair.acceptor.accept().await.unwrap();
    pair.host.abort();
    let _ = pair.host.await;
    assert!(matches!(far.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert!(matches!(pair.opener.open(1).await, Err(OpenError::Gone)));
    assert!(pair.acceptor.accept().await.is_none());
    drop(near);
}

#[tokio::test]
async fn thousands_are_carried_and_one_more_is_refused() {
    let mut pair = pair(1 << 20);
    let accept = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some((_, stream)) = pair.acceptor.accept().await {
            kept.push(stream);
        }
    });
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        open.push(pair.opener.open(1).await.unwrap());
    }
    assert!(matches!(pair.opener.open(1).await, Err(OpenError::TooMany)));
    accept.abort();
}

#[tokio::test]
async fn a_port_without_a_listener_refuses() {
    let pair = pair(4096);
    assert!(matches!(pair.opener.open(2).await, Err(OpenError::Refused)));
    pair.opener.open(1).await.unwrap();
}

#[tokio::test]
async fn garbage_ends_the_driver_with_an_error() {
    let (mut near, far) = tokio::io::duplex(4096);
    let (_acceptor, driver) = guest(far, &[]);
    near.write_all(&[0xff; 64]).await.unwrap();
    assert!(driver.await.is_err());
}
