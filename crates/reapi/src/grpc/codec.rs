//! Protobuf messages, encoded into a buffer of exactly the right size.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// What a message's buffer starts with. Larger messages reserve what they need
/// in one step; see [`ExactEncoder`].
const BUFFER_BYTES: usize = 1 << 10;

/// Messages are gathered up to this size before they are handed to HTTP/2.
const YIELD_BYTES: usize = 32 << 10;

/// See the module.
pub(super) struct ExactCodec<Req, Res>(pub(super) PhantomData<(Req, Res)>);

impl<Req, Res> Codec for ExactCodec<Req, Res>
where
    Req: Message + Default + 'static,
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
        ExactDecoder(PhantomData)
    }
}

/// Reserves a message's whole length first: growing by doubling would copy a
/// batch of blobs several times.
pub(super) struct ExactEncoder<Res>(PhantomData<Res>);

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

pub(super) struct ExactDecoder<Req>(pub(super) PhantomData<Req>);

impl<Req: Message + Default + 'static> Decoder for ExactDecoder<Req> {
    type Item = Req;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Req>, Status> {
        crate::status::decoded(Req::decode(buffer)).map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
