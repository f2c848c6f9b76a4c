//! lib
pub mod config;
pub mod ops;
pub mod registry;
pub mod archive;
pub mod checkpoint;
pub mod clock;
pub mod dead_letters;
pub mod hot_store;
pub mod memory;
pub mod partition;
pub mod storage;
