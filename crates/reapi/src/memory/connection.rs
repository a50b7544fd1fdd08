//! A connection with its quota, whose first bytes must come soon.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use super::budget::ConnectionQuota;

/// The first bytes of every HTTP/2 client: `PRI * HTTP/2.0...`, and the header of
/// its settings. From then on pings find out whether it is there.
const PREFACE_BYTES: usize = 24 + 9;

/// The time for it. Clients send it with their first packet.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Accounted<IO> {
    io: IO,
    quota: Arc<ConnectionQuota>,
    /// Until the preface is here: its missing bytes, and the time for them.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
}

/// The facts that requests know of their connection.
#[derive(Clone)]
pub(crate) struct ConnectInfo<I> {
    /// The connection's own description.
    pub(super) inner: I,
    pub(super) quota: Arc<ConnectionQuota>,
}

impl<IO> Accounted<IO> {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(io: IO, quota: Arc<ConnectionQuota>) -> Self {
        Self::with_timeout(io, quota, PREFACE_TIMEOUT)
    }

    fn with_timeout(io: IO, quota: Arc<ConnectionQuota>, timeout: Duration) -> Self {
        let preface = Some((PREFACE_BYTES, Box::pin(tokio::time::sleep(timeout))));
        Self { io, quota, preface }
    }

    fn poll_preface(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let Some((_, timeout)) = &mut self.preface else { return Poll::Pending };
        ready!(timeout.as_mut().poll(context));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client says nothing"))
    }

    fn count(&mut self, received: usize) {
        self.preface = match self.preface.take() {
            Some((missing, timeout)) if missing > received => Some((missing - received, timeout)),
            _ => None,
        };
    }
}

impl<IO: Connected> Connected for Accounted<IO> {
    type ConnectInfo = ConnectInfo<IO::ConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        ConnectInfo { inner: self.io.connect_info(), quota: Arc::clone(&self.quota) }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Accounted<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.io).poll_read(context, buffer) {
            Poll::Pending => self.poll_preface(context).map(Err),
            Poll::Ready(result) => {
                if self.preface.is_some() {
                    self.count(buffer.filled().len() - before);
                }
                Poll::Ready(result)
            }
        }
    }
}

access::write_through!(Accounted<IO>, io, IO);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::budget::Budget;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const SHORT: Duration = Duration::from_millis(20);

    async fn read(sent: &[u8]) -> io::Result<usize> {
        let (mut client, server) = tokio::io::duplex(1000);
        let quota = Budget::of_this_machine().quota();
        let mut connection = Accounted::with_timeout(server, quota, SHORT);
        client.write_all(sent).await?;
        let mut buffer = [0; 1000];
        let mut received = 0;
        while received < sent.len() {
            received += connection.read(&mut buffer).await?;
        }
        let more = tokio::time::timeout(10 * SHORT, connection.read(&mut buffer));
        // Nothing more comes: the end of the time here is silence that was allowed.
        more.await.unwrap_or(Ok(received))
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_begin_is_cut_off() {
        for sent in [0, 1, PREFACE_BYTES - 1] {
            let error = read(&vec![7; sent]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{sent}");
        }
        for sent in [PREFACE_BYTES, 500] {
            assert_eq!(read(&vec![7; sent]).await.unwrap(), sent);
        }
    }
}
