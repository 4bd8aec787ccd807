//! Base64 in groups of 48 bytes, in arithmetic that compilers turn into vector instructions. A message has some 1,500 bytes of it; with
//! a table look-up for each it was a quarter of what a message costs. What is not a whole, clean group is left to the crate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a group, and characters of its text: no padding, and one block of MD5.
pub const GROUP: usize = 48;
pub const TEXT: usize = text_len(GROUP);

/// Length of the padded base64 of `len` bytes.
#[must_use]
pub const fn text_len(len: usize) -> usize {
    len.div_ceil(3) * 4
}

/// The text of a group.
#[must_use]
pub fn encode(group: &[u8; GROUP]) -> [u8; TEXT] {
    let mut text = [0; TEXT];
    for (&[a, b, c, d, e, f], eight) in group.as_chunks().0.iter().zip(text.as_chunks_mut().0) {
        let (high, low) = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]));
        *eight = spread(u64::from(high) << 16 | u64::from(low)).to_le_bytes();
    }
    text.iter_mut().for_each(|c| *c = letter(*c));
    text
}

/// The text of the first `len` bytes of a group, padded. The rest of it has to be zeros.
pub fn encode_last(group: &[u8; GROUP], len: usize, text: &mut [u8; TEXT]) -> usize {
    *text = encode(group);
    let end = text_len(len);
    text[end - (3 - len % 3) % 3..end].fill(b'=');
    end
}

/// Decodes padded base64 into `out`, which has room for it ([`base64::decoded_len_estimate`]), and tells how many bytes. None: it is
/// not base64.
pub fn decode(text: &[u8], out: &mut [u8]) -> Option<usize> {
    // The last group may have padding.
    let whole = text.len().saturating_sub(1) / TEXT;
    let (groups, rest) = text.split_at(whole * TEXT);
    let (bytes, last) = out.split_at_mut(whole * GROUP);
    let mut clean = true;
    for (group, bytes) in groups.as_chunks().0.iter().zip(bytes.as_chunks_mut().0) {
        clean &= decode_group(group, bytes);
    }
    if !clean {
        return None;
    }
    STANDARD.decode_slice(rest, last).ok().map(|len| whole * GROUP + len)
}

/// False: it is not base64, or padded.
fn decode_group(text: &[u8; TEXT], bytes: &mut [u8; GROUP]) -> bool {
    let mut values = *text;
    values.iter_mut().for_each(|c| *c = value(*c));
    for (eight, six) in values.as_chunks().0.iter().zip(bytes.as_chunks_mut().0) {
        let bits = gather(u64::from_le_bytes(*eight));
        let ([a, b, c, d], [e, f]) = (((bits >> 16) as u32).to_be_bytes(), (bits as u16).to_be_bytes());
        *six = [a, b, c, d, e, f];
    }
    values.iter().fold(0, |all, v| all | v) < 64
}

/// Eight times six bits, each in a byte of its own, the first in the lowest.
const fn spread(bits: u64) -> u64 {
    let halves = bits >> 24 | (bits & 0x00FF_FFFF) << 32;
    let quarters = (halves >> 12) & 0x0FFF_0000_0FFF | (halves & 0x0FFF_0000_0FFF) << 16;
    (quarters >> 6) & 0x003F_003F_003F_003F | (quarters & 0x003F_003F_003F_003F) << 8
}

/// The opposite of [`spread`].
const fn gather(bytes: u64) -> u64 {
    let quarters = (bytes & 0x003F_003F_003F_003F) << 6 | (bytes >> 8) & 0x003F_003F_003F_003F;
    let halves = (quarters & 0x0FFF_0000_0FFF) << 12 | (quarters >> 16) & 0x0FFF_0000_0FFF;
    (halves & 0x00FF_FFFF) << 24 | halves >> 32
}

/// The character of a number below 64.
const fn letter(n: u8) -> u8 {
    // From one range of characters to the next: A to Z, a to z, 0 to 9, + and /.
    let mut c = n + b'A';
    c += if n >= 26 { b'a' - b'Z' - 1 } else { 0 };
    c -= if n >= 52 { b'z' + 1 - b'0' } else { 0 };
    c -= if n >= 62 { b'9' + 1 - b'+' } else { 0 };
    c += if n >= 63 { b'/' - b'+' - 1 } else { 0 };
    c
}

/// The opposite of [`letter`]; of any other character 255.
const fn value(c: u8) -> u8 {
    let mut n = 255;
    n = if c.wrapping_sub(b'A') < 26 { c.wrapping_sub(b'A') } else { n };
    n = if c.wrapping_sub(b'a') < 26 { c.wrapping_sub(b'a' - 26) } else { n };
    n = if c.wrapping_sub(b'0') < 10 { c.wrapping_sub(b'0').wrapping_add(52) } else { n };
    n = if c == b'+' { 62 } else { n };
    if c == b'/' { 63 } else { n }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;

    fn some_bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i.wrapping_mul(i) >> 3) as u8 ^ i as u8).collect()
    }

    #[test]
    fn every_number_has_the_letter_of_the_standard() {
        const ALL: &[u8; TEXT] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut group = [0; GROUP];
        assert!(decode_group(ALL, &mut group));
        assert_eq!(encode(&group), *ALL);
        assert_eq!(STANDARD.encode(group).as_bytes(), ALL);
        for c in 0..=255 {
            let n = value(c);
            assert!(if n < 64 { letter(n) == c } else { n == 255 && !encode(&group).contains(&c) }, "{c}");
        }
    }

    #[test]
    fn texts_are_those_of_the_crate() {
        for len in 0..300 {
            let bytes = some_bytes(len);
            let text = STANDARD.encode(&bytes);
            let mut out = alloc::vec![0; base64::decoded_len_estimate(text.len())];
            assert_eq!(decode(text.as_bytes(), &mut out), Some(len));
            assert_eq!(out[..len], bytes);
            if let Some(group) = bytes.first_chunk() {
                assert_eq!(encode(group), text.as_bytes()[..TEXT]);
            }
            if (1..=GROUP).contains(&len) {
                let (mut group, mut last) = ([0; GROUP], [0; TEXT]);
                group[..len].copy_from_slice(&bytes);
                let end = encode_last(&group, len, &mut last);
                assert_eq!(&last[..end], text.as_bytes());
            }
        }
    }

    #[test]
    fn a_character_that_does_not_belong_is_noticed_anywhere() {
        let text = STANDARD.encode(some_bytes(200));
        let mut out = alloc::vec![0; base64::decoded_len_estimate(text.len())];
        for at in 0..text.len() {
            for wrong in ["=", "-", "_", "\n", "\u{7f}"] {
                let mut bad = String::from(&text);
                bad.replace_range(at..=at, wrong);
                if bad != text {
                    assert_eq!(decode(bad.as_bytes(), &mut out), STANDARD.decode(&bad).ok().map(|b| b.len()), "{bad}");
                }
            }
        }
    }
}
