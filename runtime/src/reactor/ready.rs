//! Which sockets have something to do: wakers that put a key on a list and wake the reactor's one task.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// Locks, and goes on when another thread panicked: a panic in a shard ends the process anyway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rings at most once until the reactor looks. Anyone may ring, from any thread.
#[derive(Debug, Default)]
pub struct Bell {
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Bell {
    /// True when this call was the one that woke the reactor.
    pub fn ring(&self) -> bool {
        if self.rung.swap(true, Ordering::AcqRel) {
            return false;
        }
        if let Some(task) = &*lock(&self.task) {
            task.wake_by_ref();
        }
        true
    }

    /// Whether it rang since the last call.
    pub fn take(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    /// Whom to wake; called by the reactor before it looks.
    pub fn listen(&self, waker: &Waker) {
        let mut task = lock(&self.task);
        if !task.as_ref().is_some_and(|t| t.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }
}

/// The keys whose wakers fired since the reactor last looked, each once.
#[derive(Debug, Default)]
pub struct ReadyList {
    keys: Mutex<Vec<u32>>,
    bell: Bell,
}

impl ReadyList {
    pub fn listen(&self, waker: &Waker) {
        self.bell.listen(waker);
    }

    /// Moves the ready keys into `into`, which must be empty.
    pub fn take(&self, into: &mut Vec<u32>) {
        debug_assert!(into.is_empty());
        if self.bell.take() {
            std::mem::swap(into, &mut *lock(&self.keys));
        }
    }
}

/// The waker of one socket.
#[derive(Debug)]
pub struct KeyWaker {
    key: u32,
    /// Already on the list.
    queued: AtomicBool,
    list: Arc<ReadyList>,
}

impl KeyWaker {
    #[must_use]
    pub fn new(key: u32, list: &Arc<ReadyList>) -> Arc<Self> {
        Arc::new(Self { key, queued: AtomicBool::new(false), list: list.clone() })
    }

    /// The reactor looks at this socket now: a later wake puts it on the list again.
    pub fn rearm(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// Puts the key on the list.
    pub fn fire(&self) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            lock(&self.list.keys).push(self.key);
            self.list.bell.ring();
        }
    }
}

impl Wake for KeyWaker {
    fn wake(self: Arc<Self>) {
        self.fire();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.fire();
    }
}
