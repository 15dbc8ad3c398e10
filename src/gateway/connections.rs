//! Registers the open connections: limits those of each client address, and closes the longest idle ones.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{response::Body, write_timeout::PendingWrite};

/// The part of the idle connections that is closed at once, up to a number: finding them takes longer than closing them.
const CLOSED_PART: usize = 8;
const MAX_CLOSED_AT_ONCE: usize = 32;
/// Time for the handshake and the first request of a new connection, before it counts as idle.
const FIRST_REQUEST_MICROS: u64 = 5_000_000;
/// Maximum connections of one address that get an answer although they are over its limit.
const MAX_REJECTED: usize = 8;
/// Minimum time between two messages about one limit.
const MESSAGE_INTERVAL: Duration = Duration::from_secs(60);

/// The open connections of a gateway.
pub(super) struct Connections {
    started_at: Instant,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next_number: u64,
    by_number: HashMap<u64, Arc<Activity>>,
    by_address: HashMap<IpAddr, usize>,
    /// Connections over the limit that wait for their answer.
    rejected: HashMap<IpAddr, usize>,
    last_messages: HashMap<&'static str, Instant>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { started_at: Instant::now(), open: Mutex::default() }
    }
}

impl Connections {
    /// Registers a connection. `None`: its address has `max` of them.
    pub(super) fn open(self: &Arc<Self>, address: IpAddr, max: Option<usize>) -> Option<OpenConnection> {
        let address = network(address);
        let mut open = self.open.lock();
        let count = open.by_address.entry(address).or_default();
        if max.is_some_and(|max| *count >= max) {
            return None;
        }
        *count += 1;
        let activity = self.new_activity();
        let number = open.next_number;
        open.next_number += 1;
        open.by_number.insert(number, Arc::clone(&activity));
        Some(OpenConnection { connections: Arc::clone(self), number, address, activity })
    }

    /// Registers a connection over the limit of its address. `None`: as many wait for their answer already.
    pub(super) fn open_rejected(self: &Arc<Self>, address: IpAddr) -> Option<RejectedConnection> {
        let address = network(address);
        let mut open = self.open.lock();
        let count = open.rejected.entry(address).or_default();
        if *count >= MAX_REJECTED {
            return None;
        }
        *count += 1;
        Some(RejectedConnection { connections: Arc::clone(self), address, activity: self.new_activity() })
    }

    fn new_activity(&self) -> Arc<Activity> {
        Arc::new(Activity {
            started_at: self.started_at,
            idle_since: AtomicU64::new(micros_since(self.started_at).saturating_add(FIRST_REQUEST_MICROS)),
            is_busy: AtomicBool::new(false),
            pending_write: PendingWrite::default(),
            close: Notify::new(),
        })
    }

    /// Closes the connections that have been idle for the longest time. Returns how many.
    pub(super) fn close_idle(&self) -> usize {
        let open = self.open.lock();
        let now = micros_since(self.started_at);
        let is_idle = |activity: &&Arc<Activity>| activity.is_idle() && activity.idle_since.load(Relaxed) <= now;
        let mut idle: Vec<_> = open.by_number.values().filter(is_idle).collect();
        let count = idle.len().div_ceil(CLOSED_PART).min(MAX_CLOSED_AT_ONCE);
        if count < idle.len() {
            idle.select_nth_unstable_by_key(count, |activity| activity.idle_since.load(Relaxed));
        }
        for activity in &idle[..count] {
            activity.close.notify_one();
        }
        count
    }

    /// Whether a message about `limit` is due: many clients reach a limit at the same time.
    pub(super) fn is_message_due(&self, limit: &'static str) -> bool {
        let now = Instant::now();
        let mut open = self.open.lock();
        let is_due = open.last_messages.get(limit).is_none_or(|last| now - *last >= MESSAGE_INTERVAL);
        if is_due {
            open.last_messages.insert(limit, now);
        }
        is_due
    }
}

/// The addresses that count as one client: one of IPv4, a network of 64 bits of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

fn micros_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A registered connection; removed when dropped.
pub(super) struct OpenConnection {
    connections: Arc<Connections>,
    number: u64,
    address: IpAddr,
    /// What it does.
    pub(super) activity: Arc<Activity>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        open.by_number.remove(&self.number);
        decrement(&mut open.by_address, self.address);
    }
}

/// A connection over the limit of its address; removed when dropped.
pub(super) struct RejectedConnection {
    connections: Arc<Connections>,
    address: IpAddr,
    /// What it does.
    pub(super) activity: Arc<Activity>,
}

impl Drop for RejectedConnection {
    fn drop(&mut self) {
        decrement(&mut self.connections.open.lock().rejected, self.address);
    }
}

fn decrement(counts: &mut HashMap<IpAddr, usize>, address: IpAddr) {
    if let Some(count) = counts.get_mut(&address) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&address);
        }
    }
}

/// Whether a connection is idle, and since when.
pub(super) struct Activity {
    started_at: Instant,
    /// Microseconds after `started_at`; of a new connection, the time at which its first request is overdue.
    idle_since: AtomicU64,
    /// A request is being answered.
    is_busy: AtomicBool,
    /// Whether the client has not read all of the last answer.
    pub(super) pending_write: PendingWrite,
    close: Notify,
}

impl Activity {
    /// Completes when the connection must close, because it is idle and others wait.
    pub(super) async fn must_close(&self) {
        loop {
            self.close.notified().await;
            if self.is_idle() {
                return;
            }
        }
    }

    fn is_idle(&self) -> bool {
        !self.is_busy.load(Relaxed) && !self.pending_write.is_pending()
    }

    /// Marks the connection as busy until the guard is dropped.
    pub(super) fn begin_request(self: &Arc<Self>) -> BusyGuard {
        self.is_busy.store(true, Relaxed);
        BusyGuard(Arc::clone(self))
    }
}

/// Ends a request of a connection when dropped. A connection has one request at a time.
pub(super) struct BusyGuard(Arc<Activity>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.idle_since.store(micros_since(self.0.started_at), Relaxed);
        self.0.is_busy.store(false, Relaxed);
    }
}

/// A response body; the connection is busy until its last byte is written.
pub(super) struct BusyBody {
    body: Body,
    _busy: BusyGuard,
}

impl BusyBody {
    pub(super) fn new(body: Body, busy: BusyGuard) -> Self {
        Self { body, _busy: busy }
    }
}

impl http_body::Body for BusyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("valid address")
    }

    #[tokio::test(start_paused = true)]
    async fn longest_idle_connection_closes_and_busy_ones_do_not() {
        let connections = Arc::new(Connections::default());
        let open = || connections.open(address("10.0.0.1"), None).expect("no limit");
        let (first, second, third) = (open(), open(), open());
        let busy = third.activity.begin_request();
        assert_eq!(connections.close_idle(), 0, "their first requests may arrive");
        tokio::time::advance(Duration::from_secs(6)).await;
        drop(first.activity.begin_request());
        let closes = |connection: &OpenConnection| connection.activity.must_close().now_or_never().is_some();
        assert_eq!(connections.close_idle(), 1);
        assert!(closes(&second) && !closes(&first), "the other one was used last");
        drop(second);
        assert_eq!(connections.close_idle(), 1);
        let busy_again = first.activity.begin_request();
        assert!(!closes(&first), "a request has arrived meanwhile");
        assert_eq!(connections.close_idle(), 0, "both are busy");
        drop((busy, busy_again));
        let _others: Vec<_> = (0..1000).map(|_| open()).collect();
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(connections.close_idle(), MAX_CLOSED_AT_ONCE);
    }

    #[test]
    fn connections_of_an_address_are_limited() {
        let connections = Arc::new(Connections::default());
        let open = |text| connections.open(address(text), Some(2));
        let first = open("10.0.0.1").expect("the first");
        let _second = open("::ffff:10.0.0.1").expect("the second, in another notation");
        assert!(open("10.0.0.1").is_none());
        assert!(open("10.0.0.2").is_some(), "another address");
        drop(first);
        let _third = open("10.0.0.1").expect("one has closed");
        let _network = [open("2001:db8::1").expect("the first"), open("2001:db8::2").expect("the second")];
        assert!(open("2001:db8::3").is_none(), "an IPv6 client has a whole network");
        assert!(open("2001:db8:0:1::1").is_some(), "another network");
    }

    #[tokio::test(start_paused = true)]
    async fn messages_about_a_limit_are_rare() {
        let connections = Connections::default();
        assert!(connections.is_message_due("one") && connections.is_message_due("other"));
        assert!(!connections.is_message_due("one"));
        tokio::time::advance(MESSAGE_INTERVAL).await;
        assert!(connections.is_message_due("one"));
    }
}
