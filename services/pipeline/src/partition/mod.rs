//! The protocol: how one partition of the log becomes rows and objects, exactly once, whoever owns it.
//!
//! A partition's archive is a chain of segments `[S, E)` of log positions. [`worker`] takes records in and decides
//! when to cut; [`seal`] makes a cut segment durable, in five steps whose order is the whole guarantee; [`restore`]
//! finds the way back in after a crash, a rebalance or a lost race. All of it sees the world through [`seams`] alone.
//!
//! 1. Create the Parquet segment, create-only. **This is the commit point of the segment.** If the key is taken, the
//!    other's cut stands: the worker starts over from the last commit and *adopts* it, replaying `[S, E)` with the
//!    footer's decisions.
//! 2. Create the dead-letter object, if there are rejects.
//! 3. Upsert the changed aggregate rows and the late contributions; wait until they are durable.
//! 4. Create the state snapshot at `E`.
//! 5. Commit `E` to the consumer group. So committed is never ahead of durable.

mod context;
pub(crate) mod fail_point;
mod observer;
mod restore;
mod seal;
pub mod seams;
mod worker;

pub use context::{Pacing, PartitionContext, SegmentSizes, Stores};
pub use observer::Observer;
#[cfg(all(test, feature = "otlp"))]
pub(crate) use observer::seal_span;
pub use restore::StoppedLoudly;
pub use worker::{PartitionEnd, run_partition};
