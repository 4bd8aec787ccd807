//! The purity gate.
//!
//! `#![no_std]` in core and proto says what *they* use, not what their dependencies use: one crate with a default feature
//! too many and a clock, a thread or a random seed is within reach. This library supplies the two things that std would
//! supply, a panic handler and an allocator. Each may exist once in a program, so the moment any crate in the graph links
//! std the build stops with E0152 (duplicate lang item). Nothing here ever runs.
//!
//! `scripts/gate.sh` builds it, and proves on every run that a planted violation does stop the build.
#![no_std]

extern crate alloc;

// Naming a crate is what links it.
use wukong_core as _;
use wukong_proto as _;

use core::alloc::{GlobalAlloc, Layout};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

struct Never;

// SAFETY: it hands out no memory at all; null is the contract's answer for "exhausted".
unsafe impl GlobalAlloc for Never {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: Never = Never;
