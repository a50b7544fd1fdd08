//! Protobuf messages: encoded into a buffer of exactly the right size, and decoded after the memory
//! for what they become was reserved.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Buf as _;
use prost::Message;
use proto::shape::{Shaped, decoded_bytes};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::frame::{FrameError, PREFIX_BYTES};
use crate::memory::{Exhausted, MAX_BORROWED_BYTES, Reservation};

/// The first capacity of a message's buffer. Larger messages reserve what they need
/// in one step; see [`ExactEncoder`].
const BUFFER_BYTES: usize = 1 << 10;

/// Messages are gathered up to this size before they are handed to HTTP/2.
const YIELD_BYTES: usize = 32 << 10;

/// See the module.
pub(super) struct ExactCodec<Req, Res> {
    /// Grows by what the decoded request takes.
    reservation: Arc<Reservation>,
    messages: PhantomData<(Req, Res)>,
}

impl<Req, Res> ExactCodec<Req, Res> {
    pub(super) fn new(reservation: Arc<Reservation>) -> Self {
        Self { reservation, messages: PhantomData }
    }
}

impl<Req, Res> Codec for ExactCodec<Req, Res>
where
    Req: Message + Default + Shaped + 'static,
    Res: Message + 'static,
{
    type Encode = Res;
    type Decode = Req;
    type Encoder = ExactEncoder<Res>;
    type Decoder = ExactDecoder<Req>;

    fn encoder(&mut self) -> Self::Encoder {
        ExactEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ExactDecoder::new(Arc::clone(&self.reservation))
    }
}

/// Reserves a message's whole length first: growing by doubling would copy a
/// batch of blobs several times.
pub(super) struct ExactEncoder<Res>(PhantomData<Res>);

/// Shorter messages are encoded without reserving: with all streams of a connection they are a few
/// MiB.
const MIN_LENT_BYTES: usize = 4 << 10;

/// Reserves for the encoded form of an answer. The encoder could not: tonic makes INTERNAL of all
/// that goes wrong there.
pub(super) fn borrow_to_encode(
    reservation: &Reservation,
    answer: &impl Message,
) -> Result<(), Exhausted> {
    match PREFIX_BYTES + answer.encoded_len() {
        bytes if bytes >= MIN_LENT_BYTES => reservation.grow_by(bytes as u64),
        _ => Ok(()),
    }
}

impl<Res: Message + 'static> Encoder for ExactEncoder<Res> {
    type Item = Res;
    type Error = Status;

    fn encode(&mut self, item: Res, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        item.encode(buffer).map_err(|error| Status::internal(format!("encoding: {error}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// Reserves for the decoded form first: it can take a hundred times what came over the wire.
pub(super) struct ExactDecoder<Req> {
    reservation: Arc<Reservation>,
    message: PhantomData<Req>,
}

impl<Req> ExactDecoder<Req> {
    pub(super) fn new(reservation: Arc<Reservation>) -> Self {
        Self { reservation, message: PhantomData }
    }
}

impl<Req: Message + Default + Shaped + 'static> Decoder for ExactDecoder<Req> {
    type Item = Req;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Req>, Status> {
        // tonic hands out a whole message in one piece.
        let bytes = decoded_bytes::<Req>(buffer.chunk(), MAX_BORROWED_BYTES);
        self.reservation.grow_by(bytes)?;
        let message = Req::decode(buffer).map_err(FrameError::Malformed)?;
        Ok(Some(message))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// A codec for calls that reserve once for all of their messages, which are small.
pub(super) struct SmallCodec<Req, Res>(PhantomData<(Req, Res)>);

impl<Req, Res> Default for SmallCodec<Req, Res> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Req, Res> Codec for SmallCodec<Req, Res>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
{
    type Encode = Res;
    type Decode = Req;
    type Encoder = ExactEncoder<Res>;
    type Decoder = SmallDecoder<Req>;

    fn encoder(&mut self) -> Self::Encoder {
        ExactEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        SmallDecoder(PhantomData)
    }
}

/// Decodes without reserving.
pub(super) struct SmallDecoder<Req>(PhantomData<Req>);

impl<Req: Message + Default + 'static> Decoder for SmallDecoder<Req> {
    type Item = Req;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Req>, Status> {
        Ok(Some(Req::decode(buffer).map_err(FrameError::Malformed)?))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
