//! Blobs as they go out.

use std::io::{self, BufRead, Read, Write as _};

use bytes::Bytes;

use super::Compression;

/// The level of zstd: the fastest that still halves object files, for the network is the machine's own more
/// often than not.
const ZSTD_LEVEL: i32 = 1;

/// The memory of a zstd compressor of that level in bytes, beside its input.
const ZSTD_STATE_BYTES: u64 = 2 << 20;

/// The level of DEFLATE: the fastest.
const DEFLATE_LEVEL: u32 = 1;

/// The memory of a DEFLATE compressor in bytes.
const DEFLATE_STATE_BYTES: u64 = 512 << 10;

/// The quality of Brotli: the second fastest, which codes a piece by what it has counted in it.
const BROTLI_QUALITY: u32 = 1;

/// The window of Brotli, as a power of two in bytes: a compressor of that quality does not look further back.
const BROTLI_WINDOW_LOG: u32 = 18;

/// The bytes that a Brotli compressor takes at a time.
const BROTLI_PIECE_BYTES: usize = 256 << 10;

/// The memory of a Brotli compressor in bytes: a piece, twice a piece for what becomes of it, and tables.
const BROTLI_STATE_BYTES: u64 = 4 << 20;

/// Smaller blobs are not worth a compressor's time.
const MIN_PACKED_BYTES: usize = 1 << 10;

/// The memory that packing takes beside the blob and what becomes of it, in bytes.
pub(crate) fn packing_bytes(compression: Compression) -> u64 {
    match compression {
        Compression::Identity => 0,
        Compression::Zstd => ZSTD_STATE_BYTES,
        Compression::Deflate => DEFLATE_STATE_BYTES,
        Compression::Brotli => BROTLI_STATE_BYTES,
    }
}

/// The bytes of `blob` in the form in which they travel.
pub(crate) fn packing(
    compression: Compression,
    blob: impl BufRead + Send + 'static,
) -> io::Result<Box<dyn Read + Send>> {
    Ok(match compression {
        Compression::Identity => Box::new(blob),
        Compression::Zstd => Box::new(zstd::stream::read::Encoder::with_buffer(blob, ZSTD_LEVEL)?),
        Compression::Deflate => {
            let level = flate2::Compression::new(DEFLATE_LEVEL);
            Box::new(flate2::bufread::DeflateEncoder::new(blob, level))
        }
        Compression::Brotli => Box::new(brotli::CompressorReader::new(
            blob,
            BROTLI_PIECE_BYTES,
            BROTLI_QUALITY,
            BROTLI_WINDOW_LOG,
        )),
    })
}

/// Packs whole blobs for a client that unpacks them.
pub(crate) struct Packer {
    /// The form that the client takes, if the server has one of them.
    wanted: Option<Compression>,
    /// Made for the first blob that is worth it.
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Packer {
    /// The packer for a client that accepts these values of the API.
    pub(crate) fn for_client(acceptable: &[i32]) -> Self {
        let accepted = |it: &Compression| acceptable.contains(&it.to_proto());
        Self { wanted: Compression::ANNOUNCED.into_iter().find(accepted), zstd: None }
    }

    /// The memory that packing takes beside the blobs and what becomes of them, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.wanted.map_or(0, packing_bytes)
    }

    /// The blob in the form in which it goes out: compressed if that makes it smaller.
    pub(crate) fn pack(&mut self, blob: Bytes) -> (Bytes, Compression) {
        match self.wanted {
            Some(wanted) if blob.len() >= MIN_PACKED_BYTES => {
                match self.compress(wanted, &blob).filter(|packed| packed.len() < blob.len()) {
                    Some(packed) => (packed.into(), wanted),
                    None => (blob, Compression::Identity),
                }
            }
            _ => (blob, Compression::Identity),
        }
    }

    /// `None` without memory for a compressor: the blob goes out as it is.
    fn compress(&mut self, compression: Compression, blob: &[u8]) -> Option<Vec<u8>> {
        let room = Vec::with_capacity(blob.len() / 2);
        match compression {
            Compression::Identity => None,
            Compression::Zstd => {
                let compressor = match &mut self.zstd {
                    Some(compressor) => compressor,
                    none => none.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL).ok()?),
                };
                compressor.compress(blob).ok()
            }
            Compression::Deflate => {
                let level = flate2::Compression::new(DEFLATE_LEVEL);
                let mut encoder = flate2::write::DeflateEncoder::new(room, level);
                encoder.write_all(blob).and_then(|()| encoder.finish()).ok()
            }
            Compression::Brotli => {
                let mut packed = room;
                let mut encoder = brotli::CompressorReader::new(
                    blob,
                    BROTLI_PIECE_BYTES.min(blob.len()),
                    BROTLI_QUALITY,
                    BROTLI_WINDOW_LOG,
                );
                encoder.read_to_end(&mut packed).ok()?;
                Some(packed)
            }
        }
    }
}

/// A blob as a stream of that form.
#[cfg(test)]
pub(crate) fn packed(compression: Compression, content: &[u8]) -> Vec<u8> {
    let blob = io::Cursor::new(content.to_vec());
    let mut packed = Vec::new();
    packing(compression, blob).unwrap().read_to_end(&mut packed).unwrap();
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::unpack_whole;
    use crate::memory::Budget;
    use model::proto::compressor::Value;
    use model::{Digest, DigestFunction};

    fn pack(acceptable: &[Value], content: &[u8]) -> (Vec<u8>, Compression) {
        let acceptable: Vec<i32> = acceptable.iter().map(|it| (*it).into()).collect();
        let blob = Bytes::copy_from_slice(content);
        let (data, compression) = Packer::for_client(&acceptable).pack(blob);
        (data.to_vec(), compression)
    }

    #[test]
    fn blobs_are_packed_for_clients_that_unpack_them() {
        let content = vec![7; 100_000];
        for acceptable in [&[][..], &[Value::Identity]] {
            assert_eq!(pack(acceptable, &content), (content.clone(), Compression::Identity));
        }
        for (acceptable, expected) in [
            (&[Value::Zstd][..], Compression::Zstd),
            (&[Value::Deflate], Compression::Deflate),
            (&[Value::Brotli], Compression::Brotli),
            (&[Value::Identity, Value::Brotli, Value::Deflate], Compression::Deflate),
            (&[Value::Brotli, Value::Deflate, Value::Zstd], Compression::Zstd),
        ] {
            let (packed, compression) = pack(acceptable, &content);
            assert_eq!(compression, expected);
            assert!(packed.len() < 1000, "{expected:?}: {}", packed.len());
            let memory = Budget::new(1 << 30).quota().reservation();
            assert_eq!(unpack_whole(compression, &packed, 100_000, memory).unwrap(), content);
        }
    }

    #[test]
    fn what_does_not_become_smaller_goes_out_as_it_is() {
        let short = vec![7; MIN_PACKED_BYTES - 1];
        let hashes = (0..200_u8)
            .flat_map(|byte| Digest::of(DigestFunction::Sha512, &[byte]).hex_bytes().to_vec());
        let hashes: Vec<u8> = hashes.collect();
        let twice = zstd::bulk::compress(&hashes, 19).unwrap();
        for wanted in [Value::Zstd, Value::Deflate, Value::Brotli] {
            assert_eq!(pack(&[wanted], &short), (short.clone(), Compression::Identity));
            assert_eq!(pack(&[wanted], &twice), (twice.clone(), Compression::Identity));
        }
    }

    #[test]
    fn a_client_without_a_known_form_costs_nothing() {
        assert_eq!(Packer::for_client(&[99]).memory_bytes(), 0);
        let wanted = Packer::for_client(&[Value::Brotli.into()]);
        assert_eq!(wanted.memory_bytes(), BROTLI_STATE_BYTES);
    }
}
