//! The live page: what the fleet measures, what is odd about it, and how the pipeline does, in a browser.
//!
//! It only reads: ClickHouse as a user who may do nothing else, and each pipeline's `/status`. The page itself is part
//! of the binary; nothing is fetched from anywhere else.
//!
//! The way of an answer is the order of the modules:
//!
//! - [`settings`], [`cli`]: where to read, where to listen, and every bound on what a request may cost
//! - [`click_house`]: one statement, its parameters and its limits; [`statements`]: all SQL there is
//! - [`pipeline_status`]: what pipelines say of themselves
//! - [`fleet`]: closed minutes kept in memory, and the health of the sites
//! - [`poller`]: asks for all of that once for all viewers, every second or two
//! - [`inputs`]: what a request may ask for; [`series`], [`anomalies`]: the answers that are made for one viewer
//! - [`http`]: routes, the event stream, the page, errors as JSON
//! - [`application`]: builds and runs it
//!
//! Two rules keep it safe and cheap. What comes from outside reaches ClickHouse only as a query parameter, never as SQL.
//! And what a viewer watches comes from the one poller: a hundred viewers cost ClickHouse what one costs.

pub mod anomalies;
pub mod application;
pub mod cli;
pub mod click_house;
pub mod fleet;
pub mod http;
pub mod inputs;
pub mod metrics;
pub mod pipeline_status;
pub mod poller;
pub mod series;
pub mod settings;
pub mod statements;

pub use application::Dashboard;
pub use settings::Settings;
