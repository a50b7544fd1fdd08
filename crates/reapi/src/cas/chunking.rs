//! How blobs are split into chunks: the chunking functions of the API, with the parameters that the
//! capabilities announce.
//!
//! Both read a blob as a stream and hold a window of it, 2 or 2.5 MiB, however large it is. A blob that
//! is smaller than the largest chunk is one chunk, itself: the API has clients do the same.

use std::io::{self, Read};
use std::ops::RangeInclusive;

use fastcdc::v2020::{Normalization, StreamCDC};
use model::proto::chunking_function::Value as Chunking;
use model::proto::{FastCdc2020Params, RepMaxCdcParams};

/// The average size of a FastCDC chunk in bytes, as the API recommends it. The smallest chunk has a
/// quarter of it and the largest one four times as much.
const FAST_CDC_AVERAGE_BYTES: usize = 512 << 10;

/// The seed of FastCDC, as the API recommends it.
const FAST_CDC_SEED: u32 = 0;

/// The size of the smallest RepMaxCDC chunk in bytes, as the API recommends it.
const REP_MAX_MIN_BYTES: usize = 256 << 10;

/// The bytes in which RepMaxCDC looks for the best place of a cut, as the API recommends it.
const REP_MAX_HORIZON_BYTES: usize = 8 * REP_MAX_MIN_BYTES;

/// The bytes that the gear hash depends on: each shifts it by a bit.
const GEAR_WINDOW_BYTES: usize = 64;

/// The memory of a split at most: the window of the blob, and a chunk.
pub(super) const SPLIT_BYTES: u64 = 6 << 20;

/// Announced parameters of FastCDC 2020.
pub(crate) fn fast_cdc_parameters() -> FastCdc2020Params {
    FastCdc2020Params { avg_chunk_size_bytes: FAST_CDC_AVERAGE_BYTES as u64, seed: FAST_CDC_SEED }
}

/// Announced parameters of RepMaxCDC.
pub(crate) fn rep_max_cdc_parameters() -> RepMaxCdcParams {
    RepMaxCdcParams {
        min_chunk_size_bytes: REP_MAX_MIN_BYTES as u64,
        horizon_size_bytes: REP_MAX_HORIZON_BYTES as u64,
    }
}

/// The function that is used where a client asks for `asked`.
pub(super) fn chosen(asked: i32) -> Chunking {
    match Chunking::try_from(asked) {
        Ok(Chunking::RepMaxCdc) => Chunking::RepMaxCdc,
        _ => Chunking::FastCdc2020,
    }
}

/// The size from which a blob has more than one chunk.
pub(super) fn whole_below_bytes(chunking: Chunking) -> u64 {
    match chunking {
        Chunking::RepMaxCdc => 2 * REP_MAX_MIN_BYTES as u64,
        Chunking::Unknown | Chunking::FastCdc2020 => 4 * FAST_CDC_AVERAGE_BYTES as u64,
    }
}

/// The numbers of chunks that a blob of that size can have.
pub(super) fn chunks(chunking: Chunking, size_bytes: u64) -> RangeInclusive<u64> {
    let (smallest, largest) = match chunking {
        Chunking::RepMaxCdc => (REP_MAX_MIN_BYTES, 2 * REP_MAX_MIN_BYTES - 1),
        Chunking::Unknown | Chunking::FastCdc2020 => {
            (FAST_CDC_AVERAGE_BYTES / 4, FAST_CDC_AVERAGE_BYTES * 4)
        }
    };
    size_bytes.div_ceil(largest as u64)..=size_bytes.div_ceil(smallest as u64)
}

/// Calls with each chunk of a blob, in order.
pub(super) fn each_chunk<E: From<io::Error>>(
    chunking: Chunking,
    blob: impl Read,
    mut visit: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    match chunking {
        Chunking::RepMaxCdc => {
            RepMax::new(blob, REP_MAX_MIN_BYTES, REP_MAX_HORIZON_BYTES).each(visit)
        }
        Chunking::Unknown | Chunking::FastCdc2020 => {
            for chunk in fast_cdc(blob, FAST_CDC_AVERAGE_BYTES, FAST_CDC_SEED) {
                visit(&chunk.map_err(io::Error::from)?.data)?;
            }
            Ok(())
        }
    }
}

fn fast_cdc<R: Read>(blob: R, average_bytes: usize, seed: u32) -> StreamCDC<R> {
    StreamCDC::with_level_and_seed(
        blob,
        average_bytes / 4,
        average_bytes,
        average_bytes * 4,
        Normalization::Level2,
        seed.into(),
    )
}

/// RepMaxCDC: a chunk ends where the gear hash is largest within the horizon. Where that chunk would be
/// longer than twice the smallest one, it is divided by the same rule, which leaves the place that
/// was found to a later chunk.
struct RepMax<R> {
    blob: R,
    window: Vec<u8>,
    window_bytes: usize,
    min_bytes: usize,
    gear: Box<[u64; 256]>,
}

impl<R: Read> RepMax<R> {
    fn new(blob: R, min_bytes: usize, horizon_bytes: usize) -> Self {
        let window_bytes = 2 * min_bytes + horizon_bytes;
        let window = Vec::with_capacity(window_bytes);
        Self { blob, window, window_bytes, min_bytes, gear: gear() }
    }

    fn each<E: From<io::Error>>(
        mut self,
        mut visit: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let missing = (self.window_bytes - self.window.len()) as u64;
            (&mut self.blob).take(missing).read_to_end(&mut self.window)?;
            if self.window.is_empty() {
                return Ok(());
            }
            let chunk_bytes = self.chunk_bytes();
            visit(&self.window[..chunk_bytes])?;
            self.window.drain(..chunk_bytes);
        }
    }

    /// The length of the chunk at the start of the window.
    fn chunk_bytes(&self) -> usize {
        let min_bytes = self.min_bytes;
        if self.window.len() < 2 * min_bytes {
            return self.window.len();
        }
        // The bytes behind the chunk form one chunk or several.
        let mut candidates = &self.window[min_bytes..self.window.len() - min_bytes];
        let before = &self.window[min_bytes - GEAR_WINDOW_BYTES..min_bytes];
        let first = before.iter().fold(0, |hash, byte| self.roll(hash, *byte));
        loop {
            let best = self.best_cut(first, candidates);
            if best < min_bytes {
                return min_bytes + best;
            }
            // Two smallest chunks fit before the cut: the first of them ends far enough before it.
            candidates = &candidates[..best - min_bytes];
        }
    }

    /// The number of candidates before the first place with the largest hash.
    fn best_cut(&self, first: u64, candidates: &[u8]) -> usize {
        let (mut hash, mut best) = (first, (first, 0));
        for (index, byte) in candidates.iter().enumerate() {
            hash = self.roll(hash, *byte);
            if hash > best.0 {
                best = (hash, index + 1);
            }
        }
        best.1
    }

    fn roll(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.gear[usize::from(byte)])
    }
}

/// The gear table of the API: the upper half of the MD5 of each byte.
fn gear() -> Box<[u64; 256]> {
    use model::{Digest, DigestFunction};
    let mut table = Box::new([0; 256]);
    for (byte, value) in (0..=u8::MAX).zip(table.iter_mut()) {
        *value = u64::from_be_bytes(Digest::of(DigestFunction::Md5, &[byte]).hash().first());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Digest, DigestFunction};

    /// The input of the specification's test vectors: a picture by Toriyama Sekien.
    const PICTURE: &[u8] = include_bytes!("../../tests/fixtures/SekienAkashita.jpg");

    /// The specification's test vectors.
    const VECTORS: &str = include_str!("../../tests/fixtures/fastcdc2020_test_vectors.txt");

    #[test]
    fn fast_cdc_agrees_with_the_test_vectors_of_the_specification() {
        let (mut seed, mut vectors) = (None::<u64>, Vec::new());
        for line in VECTORS.lines() {
            if let Some(text) = line.strip_prefix("# Seed: ") {
                seed = Some(text.parse().unwrap());
            } else if let Some(seed) = seed.filter(|_| !line.is_empty()) {
                let fields: Vec<&str> = line.split('\t').collect();
                let [offset, length, hash, gear] = fields[..] else { panic!("{line}") };
                let vector: (u64, usize, u64) =
                    (offset.parse().unwrap(), length.parse().unwrap(), gear.parse().unwrap());
                vectors.push((seed, vector, hash.to_owned()));
            }
        }
        assert_eq!(vectors.len(), 12);
        for seed in [0, 666] {
            let expected: Vec<_> = vectors.iter().filter(|it| it.0 == seed).collect();
            // The largest chunk of the vectors is 65,535 bytes, where this implementation wants an even number.
            // No chunk comes near it.
            let found = StreamCDC::with_level_and_seed(
                PICTURE,
                4096,
                16_384,
                65_534,
                Normalization::Level2,
                seed,
            );
            let found: Vec<_> = found.map(Result::unwrap).collect();
            assert_eq!(found.len(), expected.len());
            for (index, (chunk, (_, vector, hash))) in found.iter().zip(expected).enumerate() {
                assert_eq!((chunk.offset, chunk.length), (vector.0, vector.1));
                assert_eq!(Digest::of(DigestFunction::Sha256, &chunk.data).hex(), *hash);
                // The last chunk ends with the blob and not at a hash: versions of the crate differ in
                // what they report there.
                if index + 1 < found.len() {
                    assert_eq!(chunk.hash, vector.2);
                }
            }
        }
    }

    #[test]
    fn the_gear_tables_of_both_functions_are_that_of_the_specification() {
        // The MD5 of a byte of zero is 93b885adfe0da089cdf634904fd59f71.
        assert_eq!(gear()[0], 0x93b8_85ad_fe0d_a089);
    }

    fn noise(length: usize, mut state: u64) -> Vec<u8> {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn chunks(chunking: Chunking, content: &[u8]) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        each_chunk::<io::Error>(chunking, content, |chunk| {
            chunks.push(chunk.to_vec());
            Ok(())
        })
        .unwrap();
        chunks
    }

    #[test]
    fn chunks_make_the_blob_and_have_their_sizes() {
        for chunking in [Chunking::FastCdc2020, Chunking::RepMaxCdc] {
            let (smallest, largest) = match chunking {
                Chunking::RepMaxCdc => (REP_MAX_MIN_BYTES, 2 * REP_MAX_MIN_BYTES - 1),
                _ => (FAST_CDC_AVERAGE_BYTES / 4, FAST_CDC_AVERAGE_BYTES * 4),
            };
            for content in [noise(9 << 20, 7), vec![0; 7 << 20], noise(3 << 20, 3)] {
                let found = chunks(chunking, &content);
                assert!(found.concat() == content, "{chunking:?}");
                let possible = super::chunks(chunking, content.len() as u64);
                assert!(possible.contains(&(found.len() as u64)), "{possible:?}");
                let (last, rest) = found.split_last().unwrap();
                assert!(last.len() <= largest);
                assert!(rest.iter().all(|chunk| (smallest..=largest).contains(&chunk.len())));
            }
            // Cuts depend on the content: a few bytes at the start change the first chunks only.
            let content = noise(9 << 20, 7);
            let moved = chunks(chunking, &[b"some more", content.as_slice()].concat());
            let found = chunks(chunking, &content);
            let shared = moved.iter().filter(|chunk| found.contains(chunk)).count();
            assert!(shared * 2 > moved.len(), "{chunking:?}: {shared} of {}", moved.len());
        }
    }

    /// Every place is looked at for itself, with the hash of the 64 bytes before it.
    #[test]
    fn a_rep_max_chunk_ends_at_the_largest_hash_that_its_length_allows() {
        let (min_bytes, horizon_bytes) = (100, 800);
        let table = gear();
        let content = noise(20_000, 99);
        let hash_at = |place: usize| {
            let window = &content[place - GEAR_WINDOW_BYTES..place];
            window
                .iter()
                .fold(0_u64, |hash, byte| (hash << 1).wrapping_add(table[usize::from(*byte)]))
        };
        let mut start = 0;
        RepMax::new(content.as_slice(), min_bytes, horizon_bytes)
            .each::<io::Error>(|chunk| {
                let end = (start + 2 * min_bytes + horizon_bytes).min(content.len());
                if end - start >= 2 * min_bytes {
                    let mut last = end - min_bytes;
                    let expected = loop {
                        let places = start + min_bytes..=last;
                        let best = places.rev().max_by_key(|place| hash_at(*place)).unwrap();
                        if best < start + 2 * min_bytes {
                            break best;
                        }
                        last = best - min_bytes;
                    };
                    assert_eq!(start + chunk.len(), expected);
                }
                start += chunk.len();
                Ok(())
            })
            .unwrap();
        assert_eq!(start, content.len());
    }
}
