//! The small numbers of the protocol: frame kinds, header flags, setting bits, reason codes.

use core::fmt;

/// The frame types (specification section 2.1), with their number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of the specification")]
pub enum FrameKind {
    Connect = 1,
    ConnAck = 2,
    Send = 3,
    SendAck = 4,
    Recv = 5,
    RecvAck = 6,
    Ping = 7,
    Pong = 8,
    Disconnect = 9,
    Sub = 10,
    SubAck = 11,
    Event = 12,
}

impl FrameKind {
    /// Every kind, in wire order.
    pub const ALL: [FrameKind; 12] = [
        FrameKind::Connect,
        FrameKind::ConnAck,
        FrameKind::Send,
        FrameKind::SendAck,
        FrameKind::Recv,
        FrameKind::RecvAck,
        FrameKind::Ping,
        FrameKind::Pong,
        FrameKind::Disconnect,
        FrameKind::Sub,
        FrameKind::SubAck,
        FrameKind::Event,
    ];

    /// The kind of a type nibble; none for 0 and 13 to 15, which are illegal.
    #[must_use]
    pub fn from_nibble(nibble: u8) -> Option<FrameKind> {
        FrameKind::ALL.get(usize::from(nibble).wrapping_sub(1)).copied()
    }

    /// The name as the specification writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FrameKind::Connect => "CONNECT",
            FrameKind::ConnAck => "CONNACK",
            FrameKind::Send => "SEND",
            FrameKind::SendAck => "SENDACK",
            FrameKind::Recv => "RECV",
            FrameKind::RecvAck => "RECVACK",
            FrameKind::Ping => "PING",
            FrameKind::Pong => "PONG",
            FrameKind::Disconnect => "DISCONNECT",
            FrameKind::Sub => "SUB",
            FrameKind::SubAck => "SUBACK",
            FrameKind::Event => "EVENT",
        }
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! bits {
    ($type:ident: $($name:ident $accessor:ident $mask:literal $meaning:literal;)+) => {
        impl $type {
            $(
                #[doc = $meaning]
                pub const $name: $type = $type($mask);
            )+

            $(
                #[doc = $meaning]
                #[must_use]
                pub const fn $accessor(self) -> bool {
                    self.0 & $mask != 0
                }
            )+

            /// These bits and those of `other`.
            #[must_use]
            pub const fn with(self, other: $type) -> $type {
                $type(self.0 | other.0)
            }

            /// These bits except those of `other`.
            #[must_use]
            pub const fn without(self, other: $type) -> $type {
                $type(self.0 & !other.0)
            }
        }
    };
}

/// The low nibble of the header (specification section 2.2); meaningless bits are carried and ignored.
///
/// Only the low four bits exist on the wire: a decoded value never has others, and encoding drops them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u8);

bits! { Flags:
    NO_PERSIST no_persist 0x01 "Do not store the message.";
    RED_DOT red_dot 0x02 "Count the message as unread.";
    SYNC_ONCE sync_once 0x04 "Command message, consumed once across devices.";
    DUP dup 0x08 "Retransmission.";
}

/// The Setting byte of SEND, RECV and SUB (specification section 5); unknown bits are carried unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Setting(pub u8);

bits! { Setting:
    RECEIPT receipt 0x80 "A receipt is requested.";
    SIGNAL signal 0x20 "The content is end-to-end encrypted.";
    NO_ENCRYPT no_encrypt 0x10 "The payload is not encrypted on this hop.";
    TOPIC topic 0x08 "A Topic field is present.";
    LEGACY_STREAM legacy_stream 0x04 "The stream bit of the oldest codecs; reserved since.";
    STREAM stream 0x02 "Stream fields are present at versions 2 to 4.";
}

impl Setting {
    /// What a RECV at `version` may carry of a stored setting: never NoEncrypt, and no stream bit at versions up to 4,
    /// whose clients disagree about the stream fields (specification sections 4.5 and 7.4).
    #[must_use]
    pub const fn for_recv(self, version: u8) -> Setting {
        let kept = self.without(Setting::NO_ENCRYPT);
        if version <= 4 { kept.without(Setting::STREAM).without(Setting::LEGACY_STREAM) } else { kept }
    }
}

/// The outcome carried by CONNACK, SENDACK, DISCONNECT and SUBACK (specification section 6.1).
///
/// Any value is legal; clients treat every one except [`SUCCESS`](ReasonCode::SUCCESS) as failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReasonCode(pub u8);

macro_rules! reasons {
    ($($name:ident = $code:literal $text:literal;)+) => {
        #[allow(missing_docs, reason = "the table of specification section 6.1")]
        impl ReasonCode {
            $(pub const $name: ReasonCode = ReasonCode($code);)+
        }

        impl ReasonCode {
            /// The name as the specification writes it; none for codes it does not list.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($text),)+
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    UNKNOWN = 0 "Unknown";
    SUCCESS = 1 "Success";
    AUTH_FAIL = 2 "AuthFail";
    SUBSCRIBER_NOT_EXIST = 3 "SubscriberNotExist";
    IN_BLACKLIST = 4 "InBlacklist";
    CHANNEL_NOT_EXIST = 5 "ChannelNotExist";
    USER_NOT_ON_NODE = 6 "UserNotOnNode";
    SENDER_OFFLINE = 7 "SenderOffline";
    MSG_KEY_ERROR = 8 "MsgKeyError";
    PAYLOAD_DECODE_ERROR = 9 "PayloadDecodeError";
    FORWARD_SEND_PACKET_ERROR = 10 "ForwardSendPacketError";
    NOT_ALLOW_SEND = 11 "NotAllowSend";
    CONNECT_KICK = 12 "ConnectKick";
    NOT_IN_WHITELIST = 13 "NotInWhitelist";
    QUERY_TOKEN_ERROR = 14 "QueryTokenError";
    SYSTEM_ERROR = 15 "SystemError";
    CHANNEL_ID_ERROR = 16 "ChannelIDError";
    NODE_MATCH_ERROR = 17 "NodeMatchError";
    NODE_NOT_MATCH = 18 "NodeNotMatch";
    BAN = 19 "Ban";
    NOT_SUPPORT_HEADER = 20 "NotSupportHeader";
    CLIENT_KEY_IS_EMPTY = 21 "ClientKeyIsEmpty";
    RATE_LIMIT = 22 "RateLimit";
    NOT_SUPPORT_CHANNEL_TYPE = 23 "NotSupportChannelType";
    DISBAND = 24 "Disband";
    SEND_BAN = 25 "SendBan";
    CHANNEL_DELETING = 26 "ChannelDeleting";
    PROTOCOL_UPGRADE_REQUIRED = 27 "ProtocolUpgradeRequired";
    IDEMPOTENCY_CONFLICT = 28 "IdempotencyConflict";
    MESSAGE_SEQ_EXHAUSTED = 29 "MessageSeqExhausted";
}

impl ReasonCode {
    /// The code a client at `version` knows: up to version 5 the table ends at 25, and the nearest older code is sent.
    #[must_use]
    pub const fn for_version(self, version: u8) -> ReasonCode {
        if version > 5 {
            return self;
        }
        match self {
            ReasonCode::CHANNEL_DELETING => ReasonCode::DISBAND,
            ReasonCode::PROTOCOL_UPGRADE_REQUIRED | ReasonCode::IDEMPOTENCY_CONFLICT => ReasonCode::NOT_ALLOW_SEND,
            ReasonCode::MESSAGE_SEQ_EXHAUSTED => ReasonCode::SYSTEM_ERROR,
            known => known,
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_and_kinds_match() {
        for nibble in 0..=255_u8 {
            let kind = FrameKind::from_nibble(nibble);
            assert_eq!(kind.is_some(), (1..=12).contains(&nibble));
            assert!(kind.is_none_or(|kind| kind as u8 == nibble));
        }
    }

    #[test]
    fn reasons_above_25_are_translated_for_old_clients() {
        for code in 0..=255_u8 {
            assert_eq!(ReasonCode(code).for_version(6), ReasonCode(code));
            let old = ReasonCode(code).for_version(5);
            let expected = match code {
                26 => 24,
                27 | 28 => 11,
                29 => 15,
                code => code,
            };
            assert_eq!(old, ReasonCode(expected));
            assert_eq!(ReasonCode(code).for_version(1), old);
        }
    }

    #[test]
    fn a_recv_setting_hides_what_old_clients_misread() {
        assert_eq!(Setting(0xFF).for_recv(4), Setting(0xE9));
        assert_eq!(Setting(0xFF).for_recv(5), Setting(0xEF));
        assert_eq!(Setting(0x8A).for_recv(5), Setting(0x8A));
        assert_eq!(Setting::TOPIC.with(Setting::RECEIPT).for_recv(1), Setting(0x88));
    }

    #[test]
    fn bits_have_accessors() {
        let flags = Flags::NO_PERSIST.with(Flags::DUP);
        assert_eq!(flags, Flags(9));
        assert!(flags.no_persist() && !flags.red_dot() && !flags.sync_once() && flags.dup());
        assert!(Setting(0x0A).topic() && Setting(0x0A).stream() && !Setting(0x0A).legacy_stream());
    }
}
