//! An allocator that counts, and the one place with unsafe code: it passes every call on to the system's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::AddAssign;

thread_local! {
    static COUNT: Cell<Count> = const { Cell::new(Count { allocations: 0, bytes: 0, live: 0 }) };
}

/// What the current thread allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Allocations, a growing reallocation included.
    pub allocations: u64,
    /// Bytes asked for by them; of a reallocation, what it added.
    pub bytes: u64,
    /// Bytes allocated less bytes freed.
    pub live: i64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, more: Count) {
        self.allocations += more.allocations;
        self.bytes += more.bytes;
        self.live += more.live;
    }
}

/// The counting allocator; a program that wants counts installs it:
/// `#[global_allocator] static ALLOCATOR: Counting = Counting;`
pub struct Counting;

fn add(allocations: u64, bytes: usize, freed: usize) {
    // During the end of a thread its count is gone, and nobody asks.
    let _ = COUNT.try_with(|count| {
        let mut now = count.get();
        now += Count { allocations, bytes: bytes as u64, live: bytes as i64 - freed as i64 };
        count.set(now);
    });
}

// SAFETY: every method hands its arguments unchanged to the system's allocator and returns its answer; counting
// touches a thread-local cell that is initialised at compile time and so never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(1, layout.size(), 0);
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(1, layout.size(), 0);
        // SAFETY: as promised by our caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(0, 0, layout.size());
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (more, less) = (size.saturating_sub(layout.size()), layout.size().saturating_sub(size));
        add(u64::from(more > 0), more, less);
        // SAFETY: as promised by our caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What `work` allocates on this thread. Zeros where [`Counting`] is not installed.
pub fn count<T>(work: impl FnOnce() -> T) -> (T, Count) {
    let before = COUNT.get();
    let done = work();
    let after = COUNT.get();
    let count = Count {
        allocations: after.allocations - before.allocations,
        bytes: after.bytes - before.bytes,
        live: after.live - before.live,
    };
    (done, count)
}
