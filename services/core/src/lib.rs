//! Tour to come.

pub mod anomaly;
pub mod archive;
pub mod contract;
pub mod decode;
pub mod digest;
pub mod duplicates;
pub mod partition;
mod prefetch;
pub mod quality;
pub mod record;
pub mod reject;
pub mod rows;
pub mod snapshot;
pub mod windows;
