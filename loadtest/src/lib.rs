//! The open-loop load harness of Kappa: see `kappa-loadtest --help`.
//!
//! The way of an event: [`shape`] says when it is due, [`schedule`] sends it then whatever the system does, [`fleet`]
//! says what is in it, [`encode`] puts that into bytes, and [`send`] hands it to Kafka through [`topic_producer`].
//! [`canary`] measures when a user of ClickHouse can see it. [`run`] does all that and watches; [`checks`] compares the
//! books with what is there; [`gates`] judges; [`report`] tells. It shares no code with the pipeline that it judges.

pub mod bench;
pub mod calibrate;
pub mod canary;
pub mod checks;
pub mod child;
pub mod cli;
pub mod click_house;
pub mod compare;
pub mod cost;
pub mod detection;
pub mod embedded_stack;
pub mod encode;
pub mod environment;
pub mod find_max;
pub mod flaw;
pub mod fleet;
pub mod gates;
pub mod kafka_log;
pub mod local_pipeline;
pub mod local_stack;
pub mod measured;
pub mod objects;
pub mod pipeline;
pub mod process;
pub mod progress;
pub mod random;
pub mod registry;
pub mod report;
pub mod repository;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod send;
pub mod shape;
pub mod signal;
pub mod statistics;
pub mod target;
pub mod timeline;
pub mod topic_producer;
