//! UTF-8 checked piece by piece: a text message may be cut anywhere.

/// Validates a stream of UTF-8; holds at most the three first bytes of a character that is not complete yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8 {
    head: [u8; 3],
    held: u8,
}

impl Utf8 {
    /// False when `bytes`, after all before them, cannot be a part of valid UTF-8.
    pub fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while self.held > 0 {
            let Some((&next, rest)) = bytes.split_first() else { return true };
            let held = usize::from(self.held);
            let mut trial = [0; 4];
            trial[..held].copy_from_slice(&self.head[..held]);
            trial[held] = next;
            bytes = rest;
            match std::str::from_utf8(&trial[..=held]) {
                Ok(_) => self.held = 0,
                Err(e) if e.valid_up_to() == 0 && e.error_len().is_none() && held < 3 => {
                    self.head[held] = next;
                    self.held += 1;
                }
                Err(_) => return false,
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => true,
            Err(e) if e.error_len().is_none() => {
                let tail = &bytes[e.valid_up_to()..];
                self.head[..tail.len()].copy_from_slice(tail);
                self.held = tail.len() as u8;
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the stream may end here. Begins a new one.
    pub fn end(&mut self) -> bool {
        std::mem::take(&mut self.held) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Utf8;

    fn valid(bytes: &[u8], cut: usize) -> bool {
        let mut check = Utf8::default();
        bytes.chunks(cut).all(|part| check.feed(part)) && check.end()
    }

    #[test]
    fn agrees_with_the_whole_however_it_is_cut() {
        let samples: [&[u8]; 9] = [
            "".as_bytes(),
            "plain".as_bytes(),
            "é群\u{10FFFF}x".as_bytes(),
            b"\xff",
            b"a\xe7\xbe",
            b"\xe7\xbe\x20",
            b"\xed\xa0\x80",
            b"\xf0\x9f\x98\x80\xf0\x9f\x98",
            b"\xc0\xaf",
        ];
        for bytes in samples {
            for cut in 1..=bytes.len().max(1) {
                assert_eq!(valid(bytes, cut), std::str::from_utf8(bytes).is_ok(), "{bytes:x?} cut {cut}");
            }
        }
    }
}
