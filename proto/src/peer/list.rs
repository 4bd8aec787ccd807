//! A list of messages that cannot grow beyond its bound while it is decoded.

use alloc::vec::Vec;
use bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, message as field, skip_field};
use prost::{DecodeError, Message};

/// What a [`List`] holds.
pub trait Element: Message + Default {
    /// How much of a bound it takes.
    fn weight(&self) -> usize {
        1
    }
}

/// At most `MAX` messages. On the wire it is a message whose field 1 is repeated: plain protobuf would let two received
/// bytes make an element of any size, as often as they fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List<M, const MAX: usize>(pub Vec<M>);

impl<M: Element, const MAX: usize> Message for List<M, MAX> {
    fn encode_raw(&self, out: &mut impl BufMut) {
        field::encode_repeated(1, &self.0, out);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        kind: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != 1 {
            return skip_field(kind, tag, buf, ctx);
        }
        if self.0.len() >= MAX {
            return Err(too_many());
        }
        field::merge_repeated(kind, &mut self.0, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        field::encoded_len_repeated(1, &self.0)
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[expect(deprecated, reason = "meant for implementations of Message, which this is")]
fn too_many() -> DecodeError {
    DecodeError::new("a list is too long")
}
