#![deny(unsafe_code)]
pub mod config;
pub mod log;
pub mod options;
pub mod policy;
pub mod proto;
pub mod runtime;
pub mod start;
pub mod sys;
