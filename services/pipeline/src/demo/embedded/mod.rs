//! The stack of the demo: everything the pipeline talks to, with nothing to install.

pub mod broker;
pub mod clickhouse;
pub mod directory;
pub mod registry;
