//! The limits of connections and request bodies, as data with defaults.

use std::time::Duration;

/// Limits of a gateway that protect it from slow, idle and large clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayLimits {
    /// Time for the TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// A connection is closed when the client accepts no data for this long.
    pub write_timeout: Duration,
    /// Limit of a request head and of the write buffer, in bytes.
    pub max_buffer_bytes: usize,
    /// Time between two chunks of a request body.
    pub body_chunk_timeout: Duration,
    /// Time for a whole request body: a slow body occupies memory that other requests need.
    pub body_timeout: Duration,
    /// Bytes that are read of a body whose request was already answered, so that the client reads the answer.
    pub unread_body_bytes: usize,
    /// Time for that.
    pub unread_body_timeout: Duration,
    /// Silence after which the client sends no more of it.
    pub unread_body_silence: Duration,
    /// Maximum size of the bodies of requests that may use the memory kept for small ones.
    pub small_body_bytes: usize,
    /// Time between the error event of an incomplete answer and the break of the transfer: some runtimes drop data that
    /// they have not read when the connection is reset.
    pub break_delay: Duration,
    /// Time in which requests that end because the server stops get their errors.
    pub end_timeout: Duration,
    /// Interval of comments in a stream while no chunk arrives.
    pub keep_alive_interval: Duration,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            tls_handshake_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(300),
            max_buffer_bytes: 32 * 1024,
            body_chunk_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(300),
            unread_body_bytes: 256 * 1024 * 1024,
            unread_body_timeout: Duration::from_secs(30),
            unread_body_silence: Duration::from_secs(5),
            small_body_bytes: 256 * 1024,
            break_delay: Duration::from_millis(20),
            end_timeout: Duration::from_secs(1),
            keep_alive_interval: Duration::from_secs(15),
        }
    }
}
