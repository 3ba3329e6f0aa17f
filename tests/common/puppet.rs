//! The other side of `programs/puppet.rs`.
