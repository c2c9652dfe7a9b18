//! A PNG encoder for the pictures that tools make: RGB with 8 bits, one pass over the pixels, and the same bytes on every
//! machine.
//!
//! Every row is filtered by its difference to the row above (filter type 2; PNG, third edition, section 9.2). What is left is
//! coded in one dynamic Huffman block of deflate (RFC 1951) with a fixed table: short codes for small differences, and runs
//! of zeros as matches at distance 1. Neither a search for matches nor statistics of the picture are needed, so that the
//! cost is that of reading the pixels, some table look-ups for what differs, and next to nothing for what does not. Files
//! are as large as those of the `png` crate at its fastest setting, which works by the same idea, at 0.4 to 0.8 of its
//! time (bench/tools.md).

use std::sync::OnceLock;

use simd_adler32::Adler32;

/// Filter type that says "difference to the row above".
const UP: u8 = 2;
/// Literals and lengths of deflate.
const SYMBOLS: usize = 286;
/// Ends the block.
const END: usize = 256;
/// Length 258, the longest match.
const LONGEST: usize = 285;
/// Bits of a pair's code in [`Tables::pairs`]; its length stands above them.
const PAIR_BITS: u32 = 27;

/// Lengths of the codes, complete in the sense of Kraft: 0 takes 2 bits, +-1 takes 3, +-2 takes 4, up to 12 for differences
/// beyond 33; of the runs, the longest takes 8 bits and the others 11, those too short to pay 12.
const fn lengths() -> [u8; SYMBOLS] {
    let mut lengths = [12; SYMBOLS];
    let mut byte = 0;
    while byte < 256 {
        let size = if byte < 128 { byte } else { 256 - byte };
        lengths[byte] = match size {
            0 => 2,
            1 => 3,
            2 => 4,
            3 => 5,
            4..=5 => 6,
            6..=9 => 7,
            10..=17 => 8,
            18..=33 => 9,
            _ => 12,
        };
        byte += 1;
    }
    let mut symbol = 263;
    while symbol < LONGEST {
        lengths[symbol] = 11;
        symbol += 1;
    }
    lengths[LONGEST] = 8;
    lengths
}

/// Canonical codes of these lengths (RFC 1951, section 3.2.2), first bit lowest, as they are written.
const fn codes<const N: usize>(lengths: &[u8; N]) -> [u16; N] {
    let mut codes = [0; N];
    let mut next: u16 = 0;
    let mut bits = 1;
    while bits <= 15 {
        let mut symbol = 0;
        while symbol < N {
            if lengths[symbol] == bits {
                codes[symbol] = next.reverse_bits() >> (16 - bits);
                next += 1;
            }
            symbol += 1;
        }
        next <<= 1;
        bits += 1;
    }
    codes
}

/// For each length of a match: symbol, extra bits, and their number (RFC 1951, section 3.2.5).
const fn runs() -> [(u16, u8, u8); 259] {
    let mut runs = [(0, 0, 0); 259];
    let mut length = 3;
    let mut symbol = 257;
    while symbol < LONGEST {
        let bits = if symbol < 265 { 0 } else { (symbol - 261) / 4 };
        let mut extra = 0;
        while extra < 1 << bits && length < 258 {
            runs[length] = (symbol as u16, extra as u8, bits as u8);
            length += 1;
            extra += 1;
        }
        symbol += 1;
    }
    runs[258] = (LONGEST as u16, 0, 0);
    runs
}

const LENGTHS: [u8; SYMBOLS] = lengths();
const CODES: [u16; SYMBOLS] = codes(&LENGTHS);
const RUNS: [(u16, u8, u8); 259] = runs();

struct Tables {
    /// Code and length of each pair of bytes, the first one low: one look-up for two bytes.
    pairs: Vec<u32>,
    /// Beginning of the zlib stream up to the first symbol: whole bytes ..
    head: Vec<u8>,
    /// .. and bits that do not fill one, with their number.
    rest: (u64, u32),
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        let pair = |pair: usize| {
            let (first, second) = (pair & 255, pair >> 8);
            let (a, b) = (u32::from(LENGTHS[first]), u32::from(LENGTHS[second]));
            u32::from(CODES[first]) | u32::from(CODES[second]) << a | (a + b) << PAIR_BITS
        };
        let mut head = vec![0; 512];
        let mut bits = Bits { out: &mut head, at: 0, buffer: 0, held: 0 };
        write_head(&mut bits);
        let (at, rest) = (bits.at, (bits.buffer, bits.held));
        head.truncate(at);
        Tables { pairs: (0..1 << 16).map(pair).collect(), head, rest }
    })
}

/// Headers of the zlib stream and of its one block (RFC 1950; RFC 1951, section 3.2.7).
fn write_head(bits: &mut Bits<'_>) {
    /// Order in which the lengths of the code for lengths are written.
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    /// Repeats the last length.
    const AGAIN: usize = 16;
    let mut lengths = [0; 19];
    [9, 11, 12, AGAIN].into_iter().for_each(|s| lengths[s] = 3);
    [1, 2, 3, 4, 5, 6, 7, 8].into_iter().for_each(|s| lengths[s] = 4);
    let codes = codes(&lengths);
    bits.put(0x0178, 16); // deflate, window of 32 KiB
    bits.put(0b101, 3); // the last block; its codes follow
    bits.put(SYMBOLS as u64 - 257, 5);
    bits.put(0, 5); // one code for distances
    bits.put(19 - 4, 4);
    ORDER.iter().for_each(|&s| bits.put(u64::from(lengths[s]), 3));
    // Distance 1, the only one, takes 1 bit.
    let all: Vec<usize> = LENGTHS.iter().map(|l| usize::from(*l)).chain([1]).collect();
    let mut k = 0;
    while k < all.len() {
        let length = all[k];
        bits.put(u64::from(codes[length]), u32::from(lengths[length]));
        k += 1;
        loop {
            let same = all[k..].iter().take_while(|l| **l == length).count().min(6);
            if same < 3 {
                break;
            }
            bits.put(u64::from(codes[AGAIN]), u32::from(lengths[AGAIN]));
            bits.put(same as u64 - 3, 2);
            k += same;
        }
    }
}

/// Writes bits, lowest first. There must be room for 8 bytes at `at`; what has none is lost, see [`room`].
struct Bits<'a> {
    out: &'a mut [u8],
    at: usize,
    buffer: u64,
    held: u32,
}

impl Bits<'_> {
    /// At most 56 bits.
    #[inline(always)]
    fn put(&mut self, bits: u64, count: u32) {
        self.buffer |= bits << self.held;
        self.held += count;
        if let Some(place) = self.out.get_mut(self.at..self.at + 8) {
            place.copy_from_slice(&self.buffer.to_le_bytes());
        }
        self.at += (self.held >> 3) as usize;
        self.buffer >>= self.held & !7;
        self.held &= 7;
    }

    #[inline(always)]
    fn literal(&mut self, byte: u8) {
        self.put(u64::from(CODES[usize::from(byte)]), u32::from(LENGTHS[usize::from(byte)]));
    }

    /// So many zeros: one, then matches at distance 1, whose code is a zero bit.
    fn zeros(&mut self, mut count: usize) {
        if count == 0 {
            return;
        }
        self.literal(0);
        count -= 1;
        let (longest, bits) = (u64::from(CODES[LONGEST]), u32::from(LENGTHS[LONGEST]) + 1);
        while count >= 4 * 258 {
            let two = longest | longest << bits;
            self.put(two | two << (2 * bits), 4 * bits);
            count -= 4 * 258;
        }
        while count >= 258 {
            self.put(longest, bits);
            count -= 258;
        }
        if count < 8 {
            self.put(u64::from(CODES[0]), u32::from(LENGTHS[0]) * count as u32); // the code of 0 is all zeros
        } else {
            let (symbol, extra, bits) = RUNS[count];
            let code_bits = u32::from(LENGTHS[usize::from(symbol)]);
            let code = u64::from(CODES[usize::from(symbol)]) | u64::from(extra) << code_bits;
            self.put(code, code_bits + u32::from(bits) + 1);
        }
    }

    /// The differences of one row, behind its filter type.
    fn row(&mut self, differences: &[u8], pairs: &[u32]) {
        const CODE: u32 = (1 << PAIR_BITS) - 1;
        let mut zeros = 0;
        let (words, rest) = differences.as_chunks::<8>();
        for word in words {
            let value = u64::from_le_bytes(*word);
            if value == 0 {
                zeros += 8;
                continue;
            }
            if zeros > 0 {
                let leading = (value.trailing_zeros() / 8) as usize;
                self.zeros(zeros + leading);
                zeros = 0;
                word[leading..].iter().for_each(|b| self.literal(*b));
                continue;
            }
            let pair = |k: u32| pairs[(value >> (16 * k) & 0xffff) as usize];
            let (p0, p1, p2, p3) = (pair(0), pair(1), pair(2), pair(3));
            let join = |a: u32, b: u32| {
                let bits = a >> PAIR_BITS;
                (u64::from(a & CODE) | u64::from(b & CODE) << bits, bits + (b >> PAIR_BITS))
            };
            let ((low, low_bits), (high, high_bits)) = (join(p0, p1), join(p2, p3));
            // Small differences, the usual case, are written all at once.
            if low_bits + high_bits <= 56 {
                self.put(low | high << low_bits, low_bits + high_bits);
            } else {
                self.put(low, low_bits);
                self.put(high, high_bits);
            }
        }
        self.zeros(zeros);
        rest.iter().for_each(|b| self.literal(*b));
    }
}

/// More than a row of so many bytes can take when it is coded.
fn room(stride: usize) -> usize {
    stride * 12 / 8 + 64
}

/// Encodes rows of 3 bytes a pixel, each `3 * width` long, into `out`, whose old content is overwritten: a buffer that was
/// used before spares the machine clean memory. The file is `out` up to the length that is returned.
pub(crate) fn encode<'a>(
    width: u32,
    rows: impl ExactSizeIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> usize {
    let tables = tables();
    let stride = 3 * width as usize;
    let height = rows.len() as u32;
    let mut header = b"IHDR".to_vec();
    header.extend_from_slice(&width.to_be_bytes());
    header.extend_from_slice(&height.to_be_bytes());
    header.extend_from_slice(&[8, 2, 0, 0, 0]); // 8 bits, RGB, deflate, filters by row, not interlaced
    let mut start = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut start, &header);
    let data_at = start.len();
    start.extend_from_slice(b"\0\0\0\0IDAT");
    start.extend_from_slice(&tables.head);

    let need = start.len() + room(stride);
    if out.len() < need {
        out.resize(need.max(stride * rows.len() / 4), 0);
    }
    out[..start.len()].copy_from_slice(&start);
    let (mut at, mut state) = (start.len(), tables.rest);
    let mut sum = Adler32::new();
    let nothing = vec![0; stride];
    let mut above = &nothing[..];
    let mut line = vec![0; stride + 1];
    line[0] = UP;
    for row in rows {
        if out.len() < at + room(stride) {
            out.resize(2 * out.len() + room(stride), 0);
        }
        let mut bits = Bits { out, at, buffer: state.0, held: state.1 };
        bits.literal(UP);
        let differences = &mut line[1..];
        if row == above {
            differences.fill(0);
            bits.zeros(stride);
        } else {
            for ((d, new), old) in differences.iter_mut().zip(row).zip(above) {
                *d = new.wrapping_sub(*old);
            }
            bits.row(differences, &tables.pairs);
        }
        (at, state) = (bits.at, (bits.buffer, bits.held));
        sum.write(&line);
        above = row;
    }
    out.resize(out.len().max(at + 64), 0);
    let mut bits = Bits { out, at, buffer: state.0, held: state.1 };
    bits.put(u64::from(CODES[END]), u32::from(LENGTHS[END]));
    bits.put(0, 7); // fills the last byte
    at = bits.at;
    out[at..at + 4].copy_from_slice(&sum.finish().to_be_bytes());
    at += 4;
    let length = (at - data_at - 8) as u32;
    out[data_at..data_at + 4].copy_from_slice(&length.to_be_bytes());
    let crc = crc32fast::hash(&out[data_at + 4..at]);
    out[at..at + 4].copy_from_slice(&crc.to_be_bytes());
    at += 4;
    out[at..at + IEND.len()].copy_from_slice(IEND);
    at + IEND.len()
}

/// The last chunk with its length and checksum, always the same.
const IEND: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";

/// Writes a chunk; `named` is its type and its data.
fn chunk(out: &mut Vec<u8>, named: &[u8]) {
    out.extend_from_slice(&(named.len() as u32 - 4).to_be_bytes());
    out.extend_from_slice(named);
    out.extend_from_slice(&crc32fast::hash(named).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use image::RgbImage;
    use proptest::prelude::*;

    use super::*;

    fn encoded(pixels: &RgbImage) -> Vec<u8> {
        let stride = 3 * pixels.width() as usize;
        let mut out = vec![0xa5; 7]; // old content must not matter
        let length = encode(pixels.width(), pixels.as_raw().chunks_exact(stride), &mut out);
        out.truncate(length);
        out
    }

    /// What the `png` crate reads, checksums included.
    fn decoded(bytes: &[u8]) -> RgbImage {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        reader.finish().unwrap();
        RgbImage::from_raw(reader.info().width, reader.info().height, pixels).unwrap()
    }

    #[test]
    fn the_codes_are_complete() {
        // Kraft: the codes of all symbols fill the space of 12 bits exactly.
        let space: u32 = LENGTHS.iter().map(|l| 1 << (12 - u32::from(*l))).sum();
        assert_eq!(space, 1 << 12);
        assert_eq!((RUNS[3].0, RUNS[10].0, RUNS[257], RUNS[258]), (257, 264, (284, 30, 5), (285, 0, 0)));
    }

    #[test]
    fn runs_of_every_length_come_back() {
        // One row each: a pixel of another colour, so many of the ground, a pixel again.
        for run in (0..600).chain([1031, 1032, 1033, 1034, 5000]) {
            let pixels = RgbImage::from_fn(run + 2, 3, |x, y| match (y, x == 0 || x == run + 1) {
                (1, true) => image::Rgb([9, 200, 31]),
                _ => image::Rgb([0; 3]),
            });
            assert_eq!(decoded(&encoded(&pixels)), pixels, "run of {run} pixels");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_picture_comes_back(width in 1_u32..70, height in 1_u32..50, seed: u64, spread in 0_u32..256) {
            // Noise of any strength over blocks: literals of every size, runs, and rows that repeat.
            let mut state = seed | 1;
            let pixels = RgbImage::from_fn(width, height, |x, y| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let block = ((x / 9 + y / 5) * 57 % 256) as u8;
                let noisy = (state >> 60) < u64::from(seed as u8 % 17);
                let noise = |k: u32| if noisy { ((state >> (20 + 8 * k)) as u32 % (spread + 1)) as u8 } else { 0 };
                image::Rgb([block.wrapping_add(noise(0)), block ^ noise(1), noise(2)])
            });
            prop_assert_eq!(decoded(&encoded(&pixels)), pixels);
        }
    }
}
