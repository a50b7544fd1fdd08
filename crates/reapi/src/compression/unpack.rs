//! Compressed blobs as they come in.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use store::StoreError;
use tonic::{Code, Status};

use super::brotli::Brotli;
use super::inflate::{self, Inflate};
use super::steps::Steps;
use super::{Bounded, Compression, zstd_window};
use crate::memory::{Exhausted, Reservation};
use crate::status;

/// The bytes that are unpacked at a time.
const ROOM_BYTES: usize = 64 << 10;

/// Unpacks a stream, which comes in pieces, into a sink.
pub(crate) struct Unpacker<W: Write> {
    form: Form<W>,
    /// The memory that it takes.
    _memory: Arc<Reservation>,
}

enum Form<W: Write> {
    /// The stream is the blob.
    Identity(W),
    /// By the library's own stream.
    Zstd(Box<zstd::stream::write::Decoder<'static, W>>),
    /// Step by step.
    Steps(Box<Stepped<W>>),
}

impl<W: Write> Unpacker<W> {
    /// Opens the unpacker of a blob of that size whose stream starts with these bytes. Its memory is reserved
    /// with `memory`.
    pub(crate) fn open(
        compression: Compression,
        start: &[u8],
        size_bytes: u64,
        memory: Reservation,
        sink: W,
    ) -> Result<Self, Status> {
        let memory = Arc::new(memory);
        let form = match compression {
            Compression::Identity => Form::Identity(sink),
            Compression::Zstd => {
                let log = zstd_window::log(start)?;
                memory.grow_by(zstd_window::decoder_bytes(log, size_bytes))?;
                let decoder = zstd::stream::write::Decoder::new(sink);
                let mut decoder = decoder.map_err(failed)?;
                decoder.window_log_max(log).map_err(failed)?;
                Form::Zstd(Box::new(decoder))
            }
            Compression::Deflate => {
                memory.grow_by(inflate::STATE_BYTES)?;
                Form::Steps(Stepped::new(Inflate::new(), sink))
            }
            Compression::Brotli => {
                memory.grow_by(super::brotli::STATE_BYTES)?;
                Form::Steps(Stepped::new(Brotli::new(Arc::clone(&memory)), sink))
            }
        };
        Ok(Self { form, _memory: memory })
    }

    /// Unpacks the next piece of the stream.
    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match &mut self.form {
            Form::Identity(sink) => sink.write_all(piece),
            Form::Zstd(decoder) => decoder.write_all(piece),
            Form::Steps(stepped) => stepped.write(piece),
        }
    }

    /// Ends the stream, and returns the sink. A stream that is cut short is an error, where the format tells.
    pub(crate) fn finish(self) -> io::Result<W> {
        match &self.form {
            Form::Steps(stepped) if !stepped.is_over => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream is cut short"))
            }
            _ => self.into_inner(),
        }
    }

    /// Returns the sink with what could be unpacked so far.
    pub(crate) fn into_inner(self) -> io::Result<W> {
        match self.form {
            Form::Identity(sink) => Ok(sink),
            Form::Zstd(mut decoder) => {
                decoder.flush()?;
                Ok(decoder.into_inner())
            }
            Form::Steps(stepped) => Ok(stepped.sink),
        }
    }
}

/// Unpacks a blob of that size, which bounds the result. The caller has reserved it; what unpacking takes is reserved
/// with `memory`.
pub(crate) fn unpack_whole(
    compression: Compression,
    packed: &[u8],
    size_bytes: u64,
    memory: Reservation,
) -> Result<Bytes, Status> {
    if compression == Compression::Zstd {
        // In one call the blob itself is the window.
        let unpacked = zstd::bulk::decompress(packed, size_bytes as usize);
        return unpacked.map(Bytes::from).map_err(failed);
    }
    let sink = Bounded::new(Vec::with_capacity(size_bytes as usize), size_bytes);
    let mut unpacker = Unpacker::open(compression, packed, size_bytes, memory, sink)?;
    let unpacked = unpacker.write(packed).and_then(|()| unpacker.finish());
    unpacked.map(|sink| sink.into_inner().into()).map_err(failed)
}

/// The status of compressed data that could not be unpacked into the store: the store's error if it
/// failed, RESOURCE_EXHAUSTED if there was no memory, else the data is malformed.
pub(crate) fn failed(error: io::Error) -> Status {
    let inner = error.get_ref();
    if let Some(failed) = inner.and_then(|inner| inner.downcast_ref::<StoreError>()) {
        return status::store(failed);
    }
    match inner.and_then(|inner| inner.downcast_ref::<Exhausted>()) {
        Some(exhausted) => (*exhausted).into(),
        None => status::of_act(Code::InvalidArgument, "unpacking the blob failed", &error),
    }
}

/// A decoder with its sink.
struct Stepped<W> {
    steps: Box<dyn Steps>,
    room: Box<[u8]>,
    is_over: bool,
    sink: W,
}

impl<W: Write> Stepped<W> {
    fn new(steps: impl Steps + 'static, sink: W) -> Box<Self> {
        let room = vec![0; ROOM_BYTES].into();
        Box::new(Self { steps: Box::new(steps), room, is_over: false, sink })
    }

    fn write(&mut self, mut piece: &[u8]) -> io::Result<()> {
        loop {
            if self.is_over {
                return if piece.is_empty() { Ok(()) } else { Err(invalid("data behind its end")) };
            }
            let step = self.steps.step(piece, &mut self.room)?;
            self.sink.write_all(&self.room[..step.written_bytes])?;
            self.is_over = step.is_last;
            piece = &piece[step.read_bytes..];
            let has_room = step.written_bytes < self.room.len();
            if piece.is_empty() && has_room && !self.is_over {
                return Ok(());
            }
            if !self.is_over && step.read_bytes == 0 && step.written_bytes == 0 {
                return Err(invalid("it does not go on"));
            }
        }
    }
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::pack::packed;
    use crate::memory::Budget;

    const ALL: [Compression; 3] = Compression::ANNOUNCED;

    fn content(size: usize) -> Vec<u8> {
        (0..size).map(|index| (index % 251) as u8 ^ (index / 4099) as u8).collect()
    }

    fn memory() -> Reservation {
        Budget::new(1 << 30).quota().reservation()
    }

    fn open(compression: Compression, start: &[u8]) -> Result<Unpacker<Vec<u8>>, Status> {
        Unpacker::open(compression, start, 1 << 20, memory(), Vec::new())
    }

    fn whole(compression: Compression, packed: &[u8], size_bytes: usize) -> Result<Bytes, Code> {
        let unpacked = unpack_whole(compression, packed, size_bytes as u64, memory());
        unpacked.map_err(|status| status.code())
    }

    /// Unpacks a stream in pieces of that size.
    fn unpack(
        compression: Compression,
        packed: &[u8],
        piece_bytes: usize,
        limit_bytes: usize,
    ) -> Result<Vec<u8>, Code> {
        let code = |status: Status| status.code();
        let size_bytes = limit_bytes as u64;
        let sink = Bounded::new(Vec::new(), size_bytes);
        let unpacker = Unpacker::open(compression, packed, size_bytes, memory(), sink);
        let mut unpacker = unpacker.map_err(code)?;
        let mut pieces = packed.chunks(piece_bytes);
        let unpacked =
            pieces.try_for_each(|it| unpacker.write(it)).and_then(|()| unpacker.finish());
        unpacked.map(Bounded::into_inner).map_err(|error| code(failed(error)))
    }

    #[test]
    fn blobs_are_unpacked_in_whatever_pieces_they_come() {
        for compression in ALL {
            for size in [0, 1, 1000, ROOM_BYTES, 1 << 20] {
                let content = content(size);
                let packed = packed(compression, &content);
                for piece_bytes in [1, 7, 1 << 20] {
                    let unpacked = unpack(compression, &packed, piece_bytes, size);
                    assert!(unpacked.unwrap() == content, "{compression:?} {size} {piece_bytes}");
                }
                let whole = whole(compression, &packed, size).unwrap();
                assert!(whole == content, "{compression:?} {size}");
            }
        }
    }

    /// Streams of other encoders: zlib's raw format, and brotli 1.2 with its largest window.
    #[test]
    fn streams_of_other_programs_are_unpacked() {
        let check = |compression, packed: &[u8]| {
            let unpacked = whole(compression, packed, 128).unwrap();
            assert_eq!(unpacked, b"again and again ".repeat(8), "{compression:?}");
        };
        check(
            Compression::Deflate,
            &[75, 76, 79, 204, 204, 83, 72, 204, 75, 81, 72, 132, 176, 232, 204, 7, 0],
        );
        check(
            Compression::Brotli,
            &[
                31, 127, 0, 0, 36, 0, 122, 144, 66, 128, 9, 76, 43, 212, 181, 162, 237, 30, 161,
                156, 28,
            ],
        );
    }

    #[test]
    fn a_header_of_zlib_or_gzip_is_no_deflate_data() {
        use flate2::write::{GzEncoder, ZlibEncoder};
        let content = content(1000);
        let mut zlib = ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&content).unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&content).unwrap();
        for packed in [zlib.finish().unwrap(), gzip.finish().unwrap()] {
            let refused = unpack(Compression::Deflate, &packed, 1000, 1000);
            assert_eq!(refused, Err(Code::InvalidArgument));
        }
    }

    #[test]
    fn nothing_is_unpacked_beyond_the_limit() {
        let bomb = vec![0; 32 << 20];
        for compression in ALL {
            let packed = packed(compression, &bomb);
            assert!(packed.len() < 1 << 20, "{compression:?}: {}", packed.len());
            for limit_bytes in [0, 1000, bomb.len() - 1] {
                let refused = unpack(compression, &packed, 1000, limit_bytes);
                assert_eq!(refused, Err(Code::InvalidArgument), "{compression:?}");
                let refused = whole(compression, &packed, limit_bytes);
                assert_eq!(refused, Err(Code::InvalidArgument), "{compression:?}");
            }
        }
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        for compression in [Compression::Deflate, Compression::Brotli] {
            let good = packed(compression, &content(100_000));
            let cut = [0, 1, good.len() / 2, good.len() - 1].map(|end| good[..end].to_vec());
            let longer = [&good[..], b"more"].concat();
            let noise = vec![0xff; 1000];
            for bad in cut.into_iter().chain([longer, noise]) {
                for piece_bytes in [1, 1 << 20] {
                    let refused = unpack(compression, &bad, piece_bytes, 100_000);
                    assert_eq!(refused, Err(Code::InvalidArgument), "{compression:?}");
                }
                let refused = whole(compression, &bad, 100_000);
                assert_eq!(refused, Err(Code::InvalidArgument), "{compression:?}");
            }
        }
    }

    #[test]
    fn what_could_be_unpacked_of_half_a_stream_is_known() {
        for compression in ALL {
            let content = content(3 << 20);
            let packed = packed(compression, &content);
            let mut unpacker = open(compression, &packed).unwrap();
            unpacker.write(&packed[..packed.len() / 2]).unwrap();
            let unpacked = unpacker.into_inner().unwrap();
            assert!(!unpacked.is_empty() && content.starts_with(&unpacked), "{compression:?}");
        }
    }

    #[test]
    fn codes() {
        let source = io::Error::from_raw_os_error(28);
        let full = StoreError::Io { step: "write", what: "a blob".to_owned(), source };
        assert_eq!(failed(io::Error::other(full)).code(), Code::ResourceExhausted);
        let exhausted = Budget::new(0).quota().reserve(1 << 30).unwrap_err();
        assert_eq!(failed(io::Error::other(exhausted)).code(), Code::ResourceExhausted);
        assert_eq!(failed(io::Error::other("bad")).code(), Code::InvalidArgument);
    }

    #[test]
    fn a_window_that_the_format_does_not_have_is_refused_with_a_cure() {
        let params = brotli::enc::BrotliEncoderParams {
            lgwin: 26,
            large_window: true,
            ..Default::default()
        };
        let mut packed = Vec::new();
        brotli::BrotliCompress(&mut &content(1000)[..], &mut packed, &params).unwrap();
        let mut unpacker = open(Compression::Brotli, &packed).unwrap();
        let refused = failed(unpacker.write(&packed).unwrap_err());
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("--large_window"), "{refused}");
        let huge = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &[0xff; 8]].concat();
        let refused = open(Compression::Zstd, &huge).err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("--long=27"), "{refused}");
    }

    /// With and without enough memory for the window, which is as large as the content.
    #[test]
    fn memory_is_reserved_before_it_is_taken_and_given_back() {
        let content = content(12 << 20);
        let params =
            brotli::enc::BrotliEncoderParams { quality: 2, lgwin: 24, ..Default::default() };
        let mut packed = Vec::new();
        brotli::BrotliCompress(&mut &content[..], &mut packed, &params).unwrap();
        let budget = Budget::new(28 << 20);
        let quota = budget.quota();
        let unpack = || {
            let memory = quota.reservation();
            let sink = Bounded::new(Vec::new(), content.len() as u64);
            let mut unpacker =
                Unpacker::open(Compression::Brotli, &packed, 12 << 20, memory, sink).unwrap();
            let written = unpacker.write(&packed).map_err(|error| failed(error).code());
            written.map(|()| (budget.held_bytes(), unpacker))
        };
        let (held, unpacker) = unpack().unwrap();
        assert!(((12 << 20)..(28 << 20)).contains(&held), "{held}");
        assert!(unpacker.finish().unwrap().into_inner() == content);
        assert_eq!(budget.held_bytes(), 0);
        let other = budget.quota();
        let other = other.reserve(20 << 20).unwrap();
        assert_eq!(unpack().err(), Some(Code::ResourceExhausted));
        drop(other);
        assert_eq!(budget.held_bytes(), 0);
        unpack().unwrap();
    }
}
