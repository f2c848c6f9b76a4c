//! What several tests need.

pub mod decode;
pub mod partition;
pub mod read;
