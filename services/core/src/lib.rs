//! Tour to come.

pub mod decode;
pub mod record;
pub mod reject;
pub mod anomaly;
pub mod digest;
pub mod rows;
pub mod snapshot;
pub mod windows;
pub mod archive;
pub mod contract;
pub mod partition;
mod prefetch;
