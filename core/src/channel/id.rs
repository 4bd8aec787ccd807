//! Channel ids: client form to stored form and back (semantics 4.2).

use crate::ids::{ChannelKey, channel_type};
use crate::limits;
use wukong_proto::{ReasonCode, Text};

/// The built-in sender of the server itself.
pub const SYSTEM_UID: &str = "____system";
/// Marks a send that originates in the server.
pub const SYSTEM_DEVICE: &str = "____device";
pub const MANAGER_UID: &str = "____manager";
/// The command channel suffix.
pub const CMD_SUFFIX: &str = "____cmd";
const ONLINE_CMD: &str = "systemcmdonline";

/// A uid or channel id must not contain these (semantics 1.12).
#[must_use]
pub fn has_reserved(s: &str) -> bool {
    s.bytes().any(|b| matches!(b, b'@' | b'#' | b'&'))
}

/// Whether a uid may be used by a client or given to the API (semantics 1.12). The error says what is wrong.
///
/// # Errors
/// It is blank, too long, or reserved.
pub fn check_uid(uid: &str) -> Result<(), &'static str> {
    if uid.trim().is_empty() || uid.len() > limits::UID_MAX || has_reserved(uid) {
        return Err("a uid must be 1 to 120 bytes and must not contain @, # or &");
    }
    if uid.ends_with(CMD_SUFFIX) || uid == SYSTEM_UID || uid == SYSTEM_DEVICE {
        return Err("this uid is the server's own; choose another");
    }
    Ok(())
}

/// Canonical id of the person channel of two uids: larger CRC-32 first, on equality the bytewise larger (4.2.1).
#[must_use]
pub fn compose(a: &str, b: &str) -> Text {
    let (ha, hb) = (crc32fast::hash(a.as_bytes()), crc32fast::hash(b.as_bytes()));
    let (x, y) = if (ha, a.as_bytes()) >= (hb, b.as_bytes()) { (a, b) } else { (b, a) };
    Text::concat([x, "@", y])
}

/// The two uids of a composed id; `None` unless there is exactly one `@` (4.2.2).
#[must_use]
pub fn split(id: &str) -> Option<(&str, &str)> {
    let (a, b) = id.split_once('@')?;
    (!b.contains('@')).then_some((a, b))
}

/// The id without the command suffix.
#[must_use]
pub fn origin(id: &str) -> &str {
    id.strip_suffix(CMD_SUFFIX).unwrap_or(id)
}

/// The command channel of a stored id (4.2.8).
#[must_use]
pub fn command(id: &str) -> Text {
    if id.ends_with(CMD_SUFFIX) {
        return Text::from(id);
    }
    Text::concat([id, CMD_SUFFIX])
}

/// The other party of a person channel; `uid` itself for a note to self.
#[must_use]
pub fn peer<'a>(id: &'a str, uid: &str) -> Option<&'a str> {
    let (a, b) = split(id)?;
    Some(if a == uid { b } else { a })
}

/// Stored form of an id given by a client: who speaks, the id as sent, its type (4.2.9, 4.2.10).
///
/// # Errors
/// `ChannelIDError` for an id that breaks a rule, `NotSupportChannelType` for a type this release does not serve.
pub fn stored(from: &str, id: &str, kind: u8) -> Result<ChannelKey, ReasonCode> {
    if kind != channel_type::PERSON {
        return Err(ReasonCode::NOT_SUPPORT_CHANNEL_TYPE);
    }
    let bad = id.is_empty()
        || id.len() > limits::UID_MAX
        || has_reserved(id)
        || id.ends_with(CMD_SUFFIX)
        || id == ONLINE_CMD
        || id == MANAGER_UID
        || id == SYSTEM_DEVICE;
    if bad {
        return Err(ReasonCode::CHANNEL_ID_ERROR);
    }
    Ok(ChannelKey { id: compose(from, id), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_is_symmetric_and_splits_back() {
        for (a, b) in [("u1", "u2"), ("a", "a"), ("群一", "x"), ("plumless", "buckeroo")] {
            let id = compose(a, b);
            assert_eq!(id, compose(b, a));
            let (x, y) = split(&id).unwrap();
            assert!((x, y) == (a, b) || (x, y) == (b, a));
            assert_eq!(peer(&id, a), Some(b));
        }
        // Equal CRC-32: the bytewise larger comes first, whatever the argument order.
        assert_eq!(crc32fast::hash(b"plumless"), crc32fast::hash(b"buckeroo"));
        assert_eq!(&*compose("buckeroo", "plumless"), "plumless@buckeroo");
        assert_eq!(split("a@b@c"), None);
    }

    #[test]
    fn reserved_ids_are_refused() {
        for id in ["", "a@b", "x#", "y____cmd", "systemcmdonline", "____manager", "____device"] {
            assert_eq!(stored("u", id, 1), Err(ReasonCode::CHANNEL_ID_ERROR), "{id}");
        }
        assert!(stored("u", SYSTEM_UID, 1).is_ok());
        assert_eq!(stored("u", "g", 2), Err(ReasonCode::NOT_SUPPORT_CHANNEL_TYPE));
    }
}
