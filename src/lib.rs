#![deny(unsafe_code)]
pub mod config;
pub mod proto;
