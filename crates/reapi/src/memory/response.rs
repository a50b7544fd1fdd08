//! A response's body, which reserves for what HTTP/2 still holds of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;

use super::budget::Reservation;

/// Smaller frames are not worth counting: with all streams of a connection they
/// are a few MiB.
const MIN_LENT_BYTES: usize = 4 << 10;

/// See the module.
pub(super) struct ResponseBody {
    body: Body,
    /// The memory that the call has reserved. The answer is in memory until it is encoded; the encoded part
    /// leaves with its share of this.
    reserved: Arc<Reservation>,
    is_over: bool,
}

/// Bytes, and the reservation that goes with them.
struct Lent {
    bytes: Bytes,
    _loan: Reservation,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// These bytes, for which `reservation` stands until the last part of them is dropped.
pub(crate) fn lent(bytes: Bytes, reservation: Reservation) -> Bytes {
    Bytes::from_owner(Lent { bytes, _loan: reservation })
}

impl ResponseBody {
    pub(super) fn new(body: Body, reserved: Arc<Reservation>) -> Self {
        Self { body, reserved, is_over: false }
    }

    /// A frame that is accounted for until it is sent, or an end that says why not.
    fn reserve(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Status> {
        if let Some(data) = frame.data_ref() {
            self.reserved.count_sent(data.len());
        }
        let bytes = match frame.into_data() {
            Ok(bytes) if bytes.len() >= MIN_LENT_BYTES => bytes,
            Ok(bytes) => return Ok(Frame::data(bytes)),
            Err(trailers) => return Ok(trailers),
        };
        let reservation = self.reserved.split_off(bytes.len() as u64);
        match reservation.grow_to(bytes.len() as u64).map(|()| reservation) {
            Ok(reservation) => Ok(Frame::data(lent(bytes, reservation))),
            Err(exhausted) => {
                self.is_over = true;
                let mut trailers = HeaderMap::new();
                Status::from(exhausted).add_header(&mut trailers)?;
                Ok(Frame::trailers(trailers))
            }
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context)).transpose()?;
        Poll::Ready(frame.map(|frame| self.reserve(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Not that of the body: it may end early.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    use crate::memory::budget::{Budget, ConnectionQuota, GUARANTEED_BYTES};
    use http_body_util::{BodyExt as _, Full};

    async fn next(body: &mut ResponseBody) -> Option<Frame<Bytes>> {
        body.frame().await.transpose().unwrap()
    }

    fn answer(size: usize, quota: &Arc<ConnectionQuota>) -> ResponseBody {
        let body = Body::new(Full::<Bytes>::from(vec![7; size]));
        ResponseBody::new(body, Arc::new(quota.reservation()))
    }

    #[tokio::test]
    async fn a_frame_is_borrowed_for_until_it_is_dropped() {
        let budget = Budget::new(0);
        let quota = budget.quota();
        let mut body = answer(100_000, &quota);
        let data = next(&mut body).await.unwrap().into_data().unwrap();
        assert_eq!(data, vec![7; 100_000]);
        assert!(next(&mut body).await.is_none());
        drop(body);
        let part = data.slice(5..6);
        drop(data);
        assert_eq!(quota.held_bytes.load(Ordering::Relaxed), 100_000);
        drop(part);
        assert_eq!(quota.held_bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn an_answer_that_can_not_be_held_ends_with_the_reason() {
        let budget = Budget::new(0);
        let quota = budget.quota();
        let _held = quota.reserve(GUARANTEED_BYTES).unwrap();
        let mut body = answer(100_000, &quota);
        let trailers = next(&mut body).await.unwrap().into_trailers().unwrap();
        let status = Status::from_header_map(&trailers).unwrap();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(next(&mut body).await.is_none());
        let mut small = answer(1000, &quota);
        assert!(next(&mut small).await.unwrap().is_data());
    }
}
