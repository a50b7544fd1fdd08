//! The parser of requests at sockets in the file system, for its fuzz target.

use futures_util::FutureExt as _;
use tokio::io::AsyncReadExt as _;

use crate::authority::Lenient;

/// The bytes that the HTTP/2 server gets of a client that sends `sent` and leaves, when it reads that many at a time.
///
/// # Panics
/// When `portion` is 0.
pub fn through_a_socket(sent: &[u8], portion: usize) -> Vec<u8> {
    assert!(portion > 0, "nothing can be read");
    let mut stream = Lenient::new(sent);
    let (mut read, mut buffer) = (Vec::new(), vec![0; portion]);
    loop {
        let count =
            stream.read(&mut buffer).now_or_never().expect("memory keeps no reader waiting");
        match count.expect("memory can be read") {
            0 => return read,
            count => read.extend_from_slice(&buffer[..count]),
        }
    }
}
