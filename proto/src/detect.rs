//! Which protocol a connection speaks, from its first bytes (specification section 1.2; no PROXY protocol).

/// The protocols of a client connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Binary frames.
    Binary,
    /// JSON-RPC documents.
    JsonRpc,
}

/// What the first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detection {
    /// Nothing yet: there are no bytes, or only white space. Keep them and ask again with more.
    NeedMore,
    /// The protocol, for the life of the connection, and how many leading bytes of white space to skip.
    Is(Protocol, usize),
    /// Neither protocol begins like this: close.
    Violation,
}

/// Chooses the protocol from all bytes received so far. `{` after optional white space is JSON-RPC; binary begins with
/// CONNECT at the very first byte.
#[must_use]
pub fn detect(prefix: &[u8]) -> Detection {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let skip = prefix.iter().take_while(|byte| blank(byte)).count();
    match (prefix.get(skip), skip) {
        (None, _) => Detection::NeedMore,
        (Some(b'{'), skip) => Detection::Is(Protocol::JsonRpc, skip),
        (Some(0x10..=0x1F), 0) => Detection::Is(Protocol::Binary, 0),
        (Some(_), _) => Detection::Violation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte() {
        for first in 0..=255_u8 {
            let expected = match first {
                b' ' | b'\t' | b'\n' | b'\r' => Detection::NeedMore,
                b'{' => Detection::Is(Protocol::JsonRpc, 0),
                0x10..=0x1F => Detection::Is(Protocol::Binary, 0),
                _ => Detection::Violation,
            };
            assert_eq!(detect(&[first]), expected, "{first:#04x}");
        }
    }

    #[test]
    fn white_space_belongs_to_json_only() {
        assert_eq!(detect(b""), Detection::NeedMore);
        assert_eq!(detect(b" \r\n\t"), Detection::NeedMore);
        assert_eq!(detect(b" \r\n\t{"), Detection::Is(Protocol::JsonRpc, 4));
        assert_eq!(detect(b" \x10"), Detection::Violation);
        assert_eq!(detect(b" ["), Detection::Violation);
    }
}
