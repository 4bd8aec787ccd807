//! What waits to leave on one stream.

use crate::reactor::ready::lock;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// Messages of one stream, bounded in bytes. Whoever pushes never waits; the transport takes as its peer's window allows.
#[derive(Debug)]
pub(super) struct OutQueue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    bytes_max: usize,
    closed: bool,
    reader: Option<Waker>,
}

/// What became of pushed messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pushed {
    pub taken: usize,
    pub bytes: usize,
    /// There was no room, or the stream had ended.
    pub refused: usize,
    pub ended: bool,
}

impl OutQueue {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { bytes_max, ..State::default() }) })
    }

    /// Changes how many bytes may wait.
    pub fn set_room(&self, bytes_max: usize) {
        lock(&self.state).bytes_max = bytes_max;
    }

    /// Takes messages in order as long as there is room, and wakes the transport once. One message that is larger than the
    /// whole queue is taken when it is empty. After the first that found no room the others are refused too: a stream has
    /// losses, but no more holes than necessary.
    pub fn push(&self, messages: impl IntoIterator<Item = Bytes>) -> Pushed {
        let mut pushed = Pushed::default();
        let mut state = lock(&self.state);
        pushed.ended = state.closed;
        for message in messages {
            let room = state.waiting.is_empty() || state.bytes + message.len() <= state.bytes_max;
            if pushed.refused > 0 || state.closed || !room {
                pushed.refused += 1;
                continue;
            }
            state.bytes += message.len();
            pushed.taken += 1;
            pushed.bytes += message.len();
            state.waiting.push_back(message);
        }
        let reader = if pushed.taken > 0 { state.reader.take() } else { None };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        pushed
    }

    /// The next message; none after [`close`](Self::close) when nothing is left.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = lock(&self.state);
        if let Some(message) = state.waiting.pop_front() {
            state.bytes -= message.len();
            return Poll::Ready(Some(message));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// What waits still leaves, if it can; then the stream ends.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Ends the stream without what waits.
    pub fn cut(&self) {
        {
            let mut state = lock(&self.state);
            state.waiting.clear();
            state.bytes = 0;
        }
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(queue: &OutQueue) -> Poll<Option<Bytes>> {
        queue.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn it_is_bounded_in_bytes_and_keeps_order() {
        let queue = OutQueue::new(10);
        let messages = ["123456", "789", "too long", "x"].map(|m| Bytes::from_static(m.as_bytes()));
        assert_eq!(queue.push(messages), Pushed { taken: 2, bytes: 9, refused: 2, ended: false });
        assert_eq!(take(&queue), Poll::Ready(Some("123456".into())));
        assert_eq!(
            queue.push([Bytes::from_static(b"4567890")]),
            Pushed { taken: 1, bytes: 7, refused: 0, ended: false }
        );
        assert_eq!(take(&queue), Poll::Ready(Some("789".into())));
        queue.close();
        assert_eq!(queue.push([Bytes::new()]), Pushed { refused: 1, ended: true, ..Pushed::default() });
        assert_eq!((take(&queue), take(&queue)), (Poll::Ready(Some("4567890".into())), Poll::Ready(None)));
    }

    #[test]
    fn a_message_larger_than_the_queue_goes_alone_and_a_cut_forgets() {
        let queue = OutQueue::new(4);
        assert_eq!(queue.push([Bytes::from_static(b"larger"), Bytes::from_static(b"x")]).taken, 1);
        assert!(take(&queue).is_ready());
        assert_eq!(take(&queue), Poll::Pending);
        queue.push([Bytes::from_static(b"gone")]);
        queue.cut();
        assert_eq!(take(&queue), Poll::Ready(None));
    }
}
