//! A request's body, which reserves for the message that it is in.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::{Code, Status};

use super::budget::Reservation;
use crate::frame::{FrameError, Frames, MAX_MESSAGE_BYTES, Part};
use crate::status;

/// The time that an incomplete request may be silent: longer than a network
/// is away that comes back, so short that half requests do not pile up.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// The rest of a request does not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing came of the request for {} s", after.as_secs())]
struct Silent {
    /// The time for which nothing came.
    after: Duration,
}

impl From<Silent> for Status {
    fn from(error: Silent) -> Self {
        status::of(Code::DeadlineExceeded, &error)
    }
}

/// See the module.
pub(super) struct RequestBody {
    body: Body,
    frames: Frames,
    /// For the largest message so far; only one at a time is gathered.
    reservation: Arc<Reservation>,
    max_silence: Duration,
    /// Ends when it was silent for too long; there while it is silent.
    silence: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(super) fn new(body: Body, reservation: Arc<Reservation>) -> Self {
        let max_silence = MAX_SILENCE;
        Self { body, frames: Frames::default(), reservation, max_silence, silence: None }
    }

    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let max_silence = self.max_silence;
        let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(max_silence)));
        ready!(silence.as_mut().poll(context));
        Poll::Ready(Silent { after: max_silence }.into())
    }

    fn check(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Status> {
        self.silence = None;
        if let Some(data) = frame.data_ref() {
            self.reservation.count_received(data.len());
            let size_bytes = self.largest_message(data);
            if size_bytes > MAX_MESSAGE_BYTES {
                return Err(FrameError::TooLarge { size_bytes }.into());
            }
            self.reservation.grow_to(size_bytes as u64)?;
        }
        Ok(frame)
    }

    /// The length of the largest message that begins in `data`, the next bytes of the body.
    fn largest_message(&mut self, mut data: &[u8]) -> usize {
        let mut largest = 0;
        while let Some(part) = self.frames.next(&mut data) {
            match part {
                Part::Prefix(prefix) => largest = largest.max(prefix.size_bytes),
                Part::Content(bytes) => data = &data[bytes..],
            }
        }
        largest
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Pending => self.poll_silence(context).map(|status| Some(Err(status))),
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.check(frame))),
            ended => ended,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    use crate::memory::budget::{Budget, ConnectionQuota};
    use futures_util::stream::{self, StreamExt as _};
    use http_body_util::{BodyExt as _, StreamBody};

    const MIB: usize = 1 << 20;

    fn prefix(length: usize) -> Vec<u8> {
        [&[0], (length as u32).to_be_bytes().as_slice()].concat()
    }

    async fn next(body: &mut RequestBody) -> Option<Result<Frame<Bytes>, Status>> {
        body.frame().await
    }

    /// One frame, and then silence.
    fn body(data: Vec<u8>, quota: &Arc<ConnectionQuota>) -> RequestBody {
        let frame = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(data)))]);
        let frames = StreamBody::new(frame.chain(stream::pending()));
        RequestBody::new(Body::new(frames), Arc::new(quota.reservation()))
    }

    #[tokio::test]
    async fn a_message_is_borrowed_for_when_its_length_is_known() {
        let quota = Budget::new(20 * MIB as u64).quota();
        let mut bodies: Vec<_> = (0..5).map(|_| body(prefix(4 * MIB), &quota)).collect();
        for body in &mut bodies {
            assert!(next(body).await.unwrap().is_ok());
        }
        let mut refused = body([prefix(0), prefix(1)].concat(), &quota);
        let status = next(&mut refused).await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        drop(bodies);
        let mut accepted = body(prefix(4 * MIB), &quota);
        assert!(next(&mut accepted).await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_falls_silent_is_ended() {
        let quota = Budget::new(20 * MIB as u64).quota();
        let mut body = body(prefix(4 * MIB), &quota);
        body.max_silence = Duration::from_millis(20);
        assert!(next(&mut body).await.unwrap().is_ok());
        let status = next(&mut body).await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }
}
