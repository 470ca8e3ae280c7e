//! What one client may take.

use std::time::Duration;

/// The limits of the HTTP listeners.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest request body, bytes.
    pub body_bytes: usize,
    /// Requests that may wait for a job at a time; more are answered 503.
    pub concurrent_waits: usize,
    /// The longest that a request may wait for a job.
    pub max_wait: Duration,
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
            body_bytes: 1 << 20,
            concurrent_waits: 64,
            max_wait: Duration::from_mins(5),
            concurrent_streams: 32,
            connections: 256,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
        }
    }
}
