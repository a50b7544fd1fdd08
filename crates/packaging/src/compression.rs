//! The compressions of `.deb` members and of image layers, told apart by their first bytes.

use std::io::{self, Read};

use anyhow::{Context, Result, ensure};

/// The most that one archive may unpack to. The largest package here has some 30 MB: a file that
/// inflates for ever is a mistake or an attack.
pub const MAX_UNPACKED_BYTES: u64 = 1 << 30;

const GZIP: &[u8] = &[0x1f, 0x8b];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The content of `bytes`, which are gzip, xz, zstd, or not compressed at all.
///
/// # Errors
/// When what is inside is corrupt or larger than [`MAX_UNPACKED_BYTES`].
pub fn unpack(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    decoder(bytes)
        .context("reading the compression's header")?
        .take(MAX_UNPACKED_BYTES + 1)
        .read_to_end(&mut unpacked)
        .context("unpacking")?;
    ensure!(unpacked.len() as u64 <= MAX_UNPACKED_BYTES, "it unpacks to more than 1 GiB");
    Ok(unpacked)
}

fn decoder(bytes: &[u8]) -> io::Result<Box<dyn Read + '_>> {
    Ok(if bytes.starts_with(GZIP) {
        Box::new(flate2::read::MultiGzDecoder::new(bytes))
    } else if bytes.starts_with(XZ) {
        Box::new(lzma_rust2::XzReader::new(bytes, true))
    } else if bytes.starts_with(ZSTD) {
        Box::new(zstd::Decoder::with_buffer(bytes)?)
    } else {
        Box::new(bytes)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn check(packed: &[u8]) {
        assert_eq!(unpack(packed).unwrap(), b"content");
        assert!(unpack(&packed[..packed.len() - 1]).is_err(), "a cut one");
    }

    #[test]
    fn each_compression_is_known() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(b"content").unwrap();
        check(&gzip.finish().unwrap());
        let options = lzma_rust2::XzOptions::default();
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        xz.write_all(b"content").unwrap();
        check(&xz.finish().unwrap());
        check(&zstd::encode_all(&b"content"[..], 1).unwrap());
        assert_eq!(unpack(b"content").unwrap(), b"content");
    }
}
