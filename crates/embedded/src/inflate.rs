//! zstd in Rust, so that the host's program needs no C compiler for any target.
//!
//! A source may be several frames, one after the other, as RFC 8878 has it. All of it has to be
//! frames, and the checksums that they carry are checked, which the decoder leaves to its caller.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::StreamingDecoder;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Whether a zstd frame begins here. Consumes nothing of `bytes`.
pub(crate) fn is_zstd(bytes: &mut impl BufRead) -> io::Result<bool> {
    Ok(bytes.fill_buf()?.starts_with(&MAGIC))
}

/// A reader of the content of zstd frames. Memory is bounded by a frame's window, of which the decoder
/// allows 100 MB.
pub(crate) struct Frames<R: BufRead> {
    /// The current frame; `None` after the last.
    frame: Option<Frame<R>>,
}

type Frame<R> = StreamingDecoder<R, ruzstd::decoding::FrameDecoder>;

impl<R: BufRead> Frames<R> {
    /// Begins with the first of them.
    pub(crate) fn of(bytes: R) -> io::Result<Self> {
        Ok(Self { frame: Some(begin(bytes)?) })
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while let Some(frame) = &mut self.frame {
            let read = frame.read(to)?;
            if read > 0 || to.is_empty() {
                return Ok(read);
            }
            self.frame = self.frame.take().map(next).transpose()?.flatten();
        }
        Ok(0)
    }
}

fn begin<R: BufRead>(bytes: R) -> io::Result<Frame<R>> {
    let damaged = |error| io::Error::other(format!("the zstd header: {error}"));
    StreamingDecoder::new(bytes).map_err(damaged)
}

/// The frame after one that was read to its end, if there is any.
fn next<R: BufRead>(ended: Frame<R>) -> io::Result<Option<Frame<R>>> {
    let (mut rest, frame) = ended.into_parts();
    let (said, found) = (frame.get_checksum_from_data(), frame.get_calculated_checksum());
    if said.is_some() && said != found {
        return Err(io::Error::other(
            "the content is not what was compressed: its checksum differs",
        ));
    }
    if rest.fill_buf()?.is_empty() {
        return Ok(None);
    }
    if !is_zstd(&mut rest)? {
        return Err(io::Error::other("something follows the last zstd frame"));
    }
    begin(rest).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a checksum.
    fn frame(content: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        io::Write::write_all(&mut encoder, content).unwrap();
        encoder.finish().unwrap()
    }

    fn check(bytes: &[u8], expected: Result<&[u8], &str>) {
        let mut content = Vec::new();
        let outcome = Frames::of(bytes).and_then(|mut frames| frames.read_to_end(&mut content));
        match expected {
            Ok(expected) => {
                assert_eq!((outcome.unwrap(), &content[..]), (expected.len(), expected))
            }
            Err(expected) => {
                let error = outcome.unwrap_err().to_string();
                assert!(error.contains(expected), "{error}");
            }
        }
    }

    #[test]
    fn frames_follow_each_other() {
        check(&frame(b"one"), Ok(b"one"));
        check(&[frame(b"one"), frame(b""), frame(b", two")].concat(), Ok(b"one, two"));
    }

    #[test]
    fn nothing_else_follows() {
        check(&[frame(b"one"), b"x".to_vec()].concat(), Err("something follows"));
        check(&[frame(b"one"), vec![0; 20]].concat(), Err("something follows"));
    }

    #[test]
    fn a_wrong_checksum_is_an_error() {
        let mut damaged = frame(b"content");
        *damaged.last_mut().unwrap() ^= 1;
        check(&damaged, Err("checksum"));
        check(&[damaged, frame(b"more")].concat(), Err("checksum"));
    }

    #[test]
    fn a_cut_frame_is_an_error() {
        let whole = frame(&[7; 5000]);
        for length in 5..whole.len() {
            assert!(
                Frames::of(&whole[..length]).map_or(true, |mut it| io::copy(
                    &mut it,
                    &mut io::sink()
                )
                .is_err())
            );
        }
    }
}
