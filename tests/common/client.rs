//! Clients of a service: over TCP or a path.
