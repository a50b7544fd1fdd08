//! The compressors of the API, as a client has them.

use std::io::{self, Write as _};

use model::proto::compressor::Value;

/// A compressor of blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressor {
    /// Zstandard.
    Zstd,
    /// DEFLATE without a header.
    Deflate,
    /// Brotli.
    Brotli,
}

impl Compressor {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Deflate, Self::Brotli];

    /// Its name in resource names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
            Self::Brotli => "brotli",
        }
    }

    /// Its value in messages.
    pub fn value(self) -> Value {
        match self {
            Self::Zstd => Value::Zstd,
            Self::Deflate => Value::Deflate,
            Self::Brotli => Value::Brotli,
        }
    }

    /// The content as a compressed stream.
    ///
    /// # Panics
    /// Without memory for it.
    pub fn pack(self, content: &[u8]) -> Vec<u8> {
        let packed = match self {
            Self::Zstd => zstd::stream::encode_all(content, 3),
            Self::Deflate => {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(content).and_then(|()| encoder.finish())
            }
            Self::Brotli => {
                let parameters =
                    brotli::enc::BrotliEncoderParams { quality: 4, ..Default::default() };
                let mut packed = Vec::new();
                brotli::BrotliCompress(&mut &content[..], &mut packed, &parameters).map(|_| packed)
            }
        };
        packed.expect("memory is written to")
    }

    /// The content of a compressed stream.
    ///
    /// # Errors
    /// For data that is no such stream, or only a part of one.
    pub fn unpack(self, packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        match self {
            Self::Zstd => content = zstd::stream::decode_all(packed)?,
            Self::Deflate => {
                let mut decoder = flate2::write::DeflateDecoder::new(&mut content);
                decoder.write_all(packed)?;
                decoder.try_finish()?;
            }
            Self::Brotli => brotli::BrotliDecompress(&mut &packed[..], &mut content)?,
        }
        Ok(content)
    }
}
