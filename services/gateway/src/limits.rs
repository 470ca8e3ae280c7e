//! What one client may take, beside what `api:` of the configuration says.

use std::time::Duration;

/// The limits of the HTTP listeners.
#[derive(Clone, Debug)]
pub struct Limits {
    /// All request bodies together, bytes: the container has 128 MiB, and a body is held about twice while it is passed on.
    pub all_bodies_bytes: usize,
    /// Clients that may follow the event stream at a time.
    pub concurrent_streams: usize,
    /// Connections per listener; more wait to be accepted.
    pub connections: usize,
    /// How long a client may take to send a request's head.
    pub head_timeout: Duration,
    /// How long a client may take to send a request's body.
    pub body_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            all_bodies_bytes: 16 << 20,
            concurrent_streams: 32,
            connections: 256,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
        }
    }
}
