//! What several tests need.

pub mod decode;
pub mod read;
pub mod settings;
