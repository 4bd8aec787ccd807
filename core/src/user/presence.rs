//! A connection in the registry of its user, and the RECVs it has not acknowledged (semantics 5.7).

use crate::event::mail::Delivery;
use crate::ids::ConnRef;
use crate::limits;
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use wukong_proto::Text;

/// One RECV waiting for its RECVACK.
#[derive(Clone, Debug)]
pub struct Unacked {
    pub delivery: Arc<Delivery>,
    /// Repetitions so far.
    pub repeats: u8,
    pub due: Instant,
}

/// A live connection of a user.
#[derive(Clone, Debug)]
pub struct Presence {
    pub conn: ConnRef,
    pub device_flag: u8,
    pub device_id: Text,
    /// 0 slave, 1 master.
    pub level: u8,
    /// In order of their due time, because every transmission postpones by the same span.
    pub unacked: VecDeque<Unacked>,
    /// Payload bytes of `unacked`.
    pub unacked_bytes: usize,
    /// The shard's retry queue holds an entry for this connection.
    pub in_retry_queue: bool,
}

impl Presence {
    /// Keeps a RECV for retry, before it is written. False: too many already, it goes untracked (5.7.4).
    pub fn track(&mut self, now: Instant, delivery: Arc<Delivery>) -> bool {
        let bytes = delivery.record.payload.len();
        if self.unacked.len() >= limits::UNACKED_MAX || self.unacked_bytes + bytes > limits::UNACKED_BYTES_MAX {
            return false;
        }
        self.unacked_bytes += bytes;
        self.unacked.push_back(Unacked { delivery, repeats: 0, due: now + limits::RETRY_EVERY });
        true
    }

    /// RECVACK: the client has the message.
    pub fn acked(&mut self, message_id: i64) {
        if let Some(at) = self.unacked.iter().position(|u| u.delivery.record.message_id == message_id) {
            self.unacked_bytes -= delivery_bytes(&self.unacked[at]);
            self.unacked.remove(at);
        }
    }

    /// When the next repetition is due.
    #[must_use]
    pub fn next_due(&self) -> Instant {
        self.unacked.front().map_or(Instant::NEVER, |u| u.due)
    }

    /// Takes a RECV that is due; one that was repeated often enough is given up, the client syncs.
    pub fn take_due(&mut self, now: Instant) -> Option<Arc<Delivery>> {
        loop {
            if self.next_due() > now {
                return None;
            }
            let mut u = self.unacked.pop_front()?;
            if u.repeats >= limits::RETRY_MAX {
                self.unacked_bytes -= delivery_bytes(&u);
                continue;
            }
            u.repeats += 1;
            u.due = now + limits::RETRY_EVERY;
            let delivery = u.delivery.clone();
            self.unacked.push_back(u);
            return Some(delivery);
        }
    }
}

fn delivery_bytes(u: &Unacked) -> usize {
    u.delivery.record.payload.len()
}
