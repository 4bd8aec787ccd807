//! Mail between machines of one node, on the same shard or another (architecture section 2).
//!
//! `Work` takes a credit of its target, which comes back when the target has dealt with it; a `Reply`
//! travels on the credit of the work it answers and is never refused.

/// Mail from one shard to another.
#[derive(Clone, Debug)]
pub enum Mail {
    /// Returns credits for work done.
    Credit(u32),
}
