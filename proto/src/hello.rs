//! The handshake on each stream between two nodes, and the sign of life on an open one (cluster-and-raft 4.20).
//!
//! D dialled, A accepted:
//!
//! ```text
//! D -> A   hello
//! A -> D   hello, authenticator "accept"      or refused
//! D -> A   authenticator "dial"               or refused
//! A -> D   (empty: welcome)                   or refused
//! ```
//!
//! An authenticator is HMAC-SHA256, keyed with the secret of the cluster, of [`transcript`]: the side's word and both
//! hellos as they were sent. Each hello has a nonce of its own, so nothing can be used again. After the welcome both sides
//! send frames of the links above, each a message of its own, and pings.

use crate::text::Text;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use prost::Message;

/// Versions of the frames between nodes that this build speaks.
pub const WIRE_MIN: u16 = 1;
/// The newest of them.
pub const WIRE_MAX: u16 = 1;
/// Shards of a node at most (architecture section 2).
pub const SHARDS_MAX: u8 = 16;
/// Classes of a link.
pub const CLASSES: u8 = 3;
/// Bytes of a handshake message at most.
pub const HANDSHAKE_MAX: usize = 1024;
/// First byte of what the transport says itself on an open stream. Frames begin with their format, which is never this.
pub const TRANSPORT: u8 = 0xFF;

const NODE_MAX: u32 = 1023;
const REASON_MAX: usize = 300;

/// Who opens a stream, for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster that the node belongs to.
    pub cluster: u128,
    /// 1..=1023.
    pub node: u16,
    /// Its data directory.
    pub store: u128,
    /// Counts the starts of that store.
    pub incarnation: u64,
    /// 1..=16.
    pub shards: u8,
    /// The oldest version that it speaks.
    pub wire_min: u16,
    /// Not below `wire_min`.
    pub wire_max: u16,
    /// Class of the stream, 0..=2.
    pub class: u8,
    /// Counts the links that the dialling process opened: the streams of one link have one number.
    pub link: u64,
    /// Random, new for each stream.
    pub nonce: [u8; 32],
}

impl Hello {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let halves = |v: u128| ((v >> 64) as u64, v as u64);
        let ((cluster_high, cluster_low), (store_high, store_low)) = (halves(self.cluster), halves(self.store));
        let message = HelloMessage {
            cluster_high,
            cluster_low,
            node: u32::from(self.node),
            store_high,
            store_low,
            incarnation: self.incarnation,
            shards: u32::from(self.shards),
            wire_min: u32::from(self.wire_min),
            wire_max: u32::from(self.wire_max),
            class: u32::from(self.class),
            link: self.link,
            nonce: Bytes::copy_from_slice(&self.nonce),
        };
        message.encode_to_vec().into()
    }

    /// Reads one.
    ///
    /// # Errors
    /// No hello, or one of a node that cannot be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let m = HelloMessage::decode(bytes).map_err(|_| Malformed("a hello"))?;
        let whole = |high, low| (u128::from(high) << 64) | u128::from(low);
        let small = |v: u32| u16::try_from(v).map_err(|_| Malformed("a wire version"));
        let hello = Self {
            cluster: whole(m.cluster_high, m.cluster_low),
            node: u16::try_from(m.node)
                .ok()
                .filter(|n| (1..=NODE_MAX).contains(&u32::from(*n)))
                .ok_or(Malformed("a node id"))?,
            store: whole(m.store_high, m.store_low),
            incarnation: m.incarnation,
            shards: u8::try_from(m.shards)
                .ok()
                .filter(|n| (1..=SHARDS_MAX).contains(n))
                .ok_or(Malformed("a number of shards"))?,
            wire_min: small(m.wire_min)?,
            wire_max: small(m.wire_max)?,
            class: u8::try_from(m.class).ok().filter(|n| *n < CLASSES).ok_or(Malformed("a class"))?,
            link: m.link,
            nonce: m.nonce.as_ref().try_into().map_err(|_| Malformed("a nonce"))?,
        };
        if hello.wire_min > hello.wire_max {
            return Err(Malformed("a range of wire versions"));
        }
        Ok(hello)
    }
}

/// The highest version that both speak.
#[must_use]
pub fn common_wire(a: &Hello, b: &Hello) -> Option<u16> {
    let highest = a.wire_max.min(b.wire_max);
    (highest >= a.wire_min.max(b.wire_min)).then_some(highest)
}

/// Which side proves that it has the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who dialled.
    Dial,
    /// Who was dialled.
    Accept,
}

/// What an authenticator covers: the encoded hellos as they were sent.
#[must_use]
pub fn transcript(side: Side, dialled: &[u8], accepted: &[u8]) -> Vec<u8> {
    let word: &[u8] = match side {
        Side::Dial => b"wukong link dial",
        Side::Accept => b"wukong link accept",
    };
    let mut out = Vec::new();
    for part in [word, dialled, accepted] {
        out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// Why a stream is refused. Numbers are on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum RefusalCode { $($(#[$doc])* $name = $number,)* }

        impl RefusalCode {
            fn of(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

refusals! {
    /// A reason that this version does not know, or a message that nobody should send.
    Other = 1,
    /// The nodes belong to different clusters.
    OtherCluster = 2,
    /// Another node than the one that was dialled answered.
    WrongNode = 3,
    /// The node is not among the configured peers.
    UnknownNode = 4,
    /// No version that both speak.
    NoCommonVersion = 5,
    /// The authenticator is wrong.
    WrongSecret = 6,
    /// A process of that store with a higher incarnation has been seen.
    OldIncarnation = 7,
    /// The store is known under another node id: a copied data directory.
    StoreTwice = 8,
    /// The node is linked with another store.
    OtherStore = 9,
    /// Both ends are one node.
    Itself = 10,
    /// A newer link of the same process is there, or this one has the class already.
    OldLink = 11,
    /// Too many handshakes at one time, or the node stops.
    Busy = 12,
}

/// A refusal with its reason in words, for the operator of the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub reason: Text,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// One message of the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// The encoded hello, undecoded: authenticators cover these very bytes.
    Hello {
        /// [`Hello::encode`].
        hello: Bytes,
        /// Empty in the first message.
        authenticator: Bytes,
    },
    /// The dialling side's proof.
    Authenticator(Bytes),
    /// The stream is open.
    Welcome,
    /// The stream ends.
    Refused(Refusal),
}

impl Handshake {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut message = HandshakeMessage::default();
        match self {
            Self::Hello { hello, authenticator } => {
                message.hello = hello.clone();
                message.authenticator = authenticator.clone();
            }
            Self::Authenticator(authenticator) => message.authenticator = authenticator.clone(),
            Self::Welcome => {}
            Self::Refused(refusal) => {
                let reason = refusal.reason.chars().take(REASON_MAX).collect();
                message.refused = Some(RefusedMessage { code: refusal.code as u32, reason });
            }
        }
        message.encode_to_vec().into()
    }

    /// Reads one.
    ///
    /// # Errors
    /// No message of a handshake.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > HANDSHAKE_MAX {
            return Err(Malformed("a handshake message: it is too long"));
        }
        let m = HandshakeMessage::decode(bytes).map_err(|_| Malformed("a handshake message"))?;
        Ok(if let Some(refused) = m.refused {
            let code = RefusalCode::of(refused.code).unwrap_or(RefusalCode::Other);
            let reason: String = refused.reason.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect();
            Self::Refused(Refusal { code, reason: reason.into() })
        } else if !m.hello.is_empty() {
            Self::Hello { hello: m.hello, authenticator: m.authenticator }
        } else if !m.authenticator.is_empty() {
            Self::Authenticator(m.authenticator)
        } else {
            Self::Welcome
        })
    }
}

/// Bytes that are not what they should be; names that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this is not {}", self.0)
    }
}

/// A sign of life on an open control stream.
#[must_use]
pub fn encode_ping(count: u64) -> Bytes {
    let mut out = alloc::vec![TRANSPORT];
    // A vector grows as needed, so this does not fail.
    let _ = LinkPingMessage { count }.encode(&mut out);
    out.into()
}

/// Whether a message is the transport's own, and no frame of the links above.
#[must_use]
pub fn is_transport(message: &[u8]) -> bool {
    message.first() == Some(&TRANSPORT)
}

#[derive(Clone, PartialEq, Eq, Message)]
struct HelloMessage {
    #[prost(fixed64, tag = "1")]
    cluster_high: u64,
    #[prost(fixed64, tag = "2")]
    cluster_low: u64,
    #[prost(uint32, tag = "3")]
    node: u32,
    #[prost(fixed64, tag = "4")]
    store_high: u64,
    #[prost(fixed64, tag = "5")]
    store_low: u64,
    #[prost(uint64, tag = "6")]
    incarnation: u64,
    #[prost(uint32, tag = "7")]
    shards: u32,
    #[prost(uint32, tag = "8")]
    wire_min: u32,
    #[prost(uint32, tag = "9")]
    wire_max: u32,
    #[prost(uint32, tag = "10")]
    class: u32,
    #[prost(uint64, tag = "11")]
    link: u64,
    #[prost(bytes = "bytes", tag = "12")]
    nonce: Bytes,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct HandshakeMessage {
    #[prost(bytes = "bytes", tag = "1")]
    hello: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    authenticator: Bytes,
    #[prost(message, optional, tag = "3")]
    refused: Option<RefusedMessage>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct RefusedMessage {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    reason: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct LinkPingMessage {
    #[prost(uint64, tag = "1")]
    count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            cluster: u128::MAX - 5,
            node: 1023,
            store: 7 << 64,
            incarnation: u64::MAX,
            shards: 16,
            wire_min: 1,
            wire_max: 3,
            class: 2,
            link: 9,
            nonce: [4; 32],
        }
    }

    #[test]
    fn a_hello_comes_back_and_impossible_ones_do_not() {
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
        let bad = [
            Hello { node: 0, ..hello() },
            Hello { node: 1024, ..hello() },
            Hello { shards: 0, ..hello() },
            Hello { shards: 17, ..hello() },
            Hello { class: 3, ..hello() },
            Hello { wire_min: 4, ..hello() },
        ];
        for hello in bad {
            assert!(Hello::decode(&hello.encode()).is_err(), "{hello:?}");
        }
        assert!(Hello::decode(b"\xFF").is_err() && Hello::decode(b"").is_err());
    }

    #[test]
    fn messages_come_back() {
        let refusal = Refusal { code: RefusalCode::OldIncarnation, reason: "too old".into() };
        for message in [
            Handshake::Hello { hello: hello().encode(), authenticator: Bytes::from_static(b"a") },
            Handshake::Authenticator(Bytes::from_static(b"b")),
            Handshake::Welcome,
            Handshake::Refused(refusal),
        ] {
            assert_eq!(Handshake::decode(&message.encode()), Ok(message));
        }
        assert!(Handshake::decode(&[0; HANDSHAKE_MAX + 1]).is_err());
        // Field 3 (refused) with code 4,000 and reason "x\n".
        let unknown = b"\x1A\x07\x08\xA0\x1F\x12\x02x\n";
        let told = Handshake::decode(unknown);
        assert_eq!(told, Ok(Handshake::Refused(Refusal { code: RefusalCode::Other, reason: "x".into() })));
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        let speaks = |wire_min, wire_max| Hello { wire_min, wire_max, ..hello() };
        assert_eq!(common_wire(&speaks(1, 3), &speaks(2, 9)), Some(3));
        assert_eq!(common_wire(&speaks(2, 2), &speaks(1, 2)), Some(2));
        assert_eq!(common_wire(&speaks(1, 2), &speaks(3, 9)), None);
    }

    #[test]
    fn transcripts_differ_by_side_and_by_where_a_hello_ends() {
        assert_ne!(transcript(Side::Dial, b"ab", b"c"), transcript(Side::Accept, b"ab", b"c"));
        assert_ne!(transcript(Side::Dial, b"ab", b"c"), transcript(Side::Dial, b"a", b"bc"));
    }

    #[test]
    fn a_ping_is_told_from_frames() {
        assert!(is_transport(&encode_ping(u64::MAX)) && is_transport(&encode_ping(0)));
        assert!(!is_transport(b"\x01\x00\x02") && !is_transport(b""));
    }
}
