//! Accepts, limits and closes client connections.
//!
//! A connection that stays idle, sends its head too slowly or does not read is closed. At the connection limit, the
//! longest idle connections are closed; if none is idle, new ones wait in the backlog. On shutdown no connection is
//! accepted; requests in flight get `drain` to finish, then they end with an error.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};

use super::{
    Gateway, Workers,
    connections::{Activity, BusyBody},
    phase::Phase,
    request_context::ConnInfo,
    routes::Routers,
    upload::{self, UploadBody},
    write_timeout::WriteTimeoutStream,
};

use crate::model::{describe_error, plural};

/// The smallest buffer that hyper accepts.
const MIN_BUFFER_BYTES: usize = 8192;
/// Connections that may wait to be accepted. A client over this limit retries its connection attempt after 1 s.
const BACKLOG: u32 = 4096;
/// Delay after a failed `accept`, such as when the process has no file descriptors left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Interval of checks for idle connections while a client waits for one.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Time for the request and the answer of a rejected connection.
const REJECTION_TIMEOUT: Duration = Duration::from_secs(5);

impl Gateway {
    /// Serves up to `max_connections` connections of `listener` on the threads of `workers` until `stop` resolves. Then
    /// requests in flight get the configured `drain` time to finish, after which they end with an error. Returns the
    /// number of connections that were open at the end of that time.
    pub async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        workers: &Workers,
        max_connections: usize,
        stop: impl Future<Output = ()>,
    ) -> usize {
        if let Ok(address) = listener.local_addr() {
            self.listen_ip.get_or_init(|| address.ip());
        }
        let mut connections = JoinSet::new();
        tokio::select! {
            () = stop => {}
            never = self.accept_connections(listener, workers, max_connections, &mut connections) => match never {},
        }
        self.phase.enter(Phase::Draining);
        tokio::select! {
            () = self.join_all(&mut connections) => {}
            () = sleep(self.current().config.serve.drain) => {}
            () = self.phase.reached(Phase::Ending) => {}
        }
        let unfinished = connections.len();
        self.phase.enter(Phase::Ending);
        let _ = timeout(self.deps.limits.end_timeout, self.join_all(&mut connections)).await;
        connections.shutdown().await;
        unfinished
    }

    /// Accepts connections until it is dropped, which closes the listener.
    async fn accept_connections(
        self: &Arc<Self>,
        listener: TcpListener,
        workers: &Workers,
        max_connections: usize,
        connections: &mut JoinSet<()>,
    ) -> Infallible {
        let (permits, routers) = (Arc::new(Semaphore::new(max_connections)), self.routers());
        let next_connection = || async {
            let (socket, address) = accept(&listener, self).await;
            (self.connection_permit(&permits, max_connections).await, socket, address)
        };
        // Dropping the future would close a connection that waits for its permit.
        let mut next = pin!(next_connection());
        loop {
            let (permit, socket, address) = tokio::select! {
                result = connections.join_next(), if !connections.is_empty() => {
                    self.log_panic(result);
                    continue;
                }
                connection = next.as_mut() => connection,
            };
            next.set(next_connection());
            let (gateway, routers) = (Arc::clone(self), routers.clone());
            let (worker, guard) = workers.least_busy();
            let connection = async move {
                let _gauge = ConnectionGauge::new(&gateway);
                // Registers the socket with the event loop of this worker.
                match TcpStream::from_std(socket) {
                    Ok(socket) => gateway.handle_connection(socket, address, routers).await,
                    Err(error) => gateway.deps.log.event("accept-failed", &describe_error(&error)),
                }
                drop((permit, guard));
            };
            connections.spawn_on(connection, worker);
        }
    }

    /// Waits until a connection may be served.
    async fn connection_permit(&self, permits: &Arc<Semaphore>, max_connections: usize) -> OwnedSemaphorePermit {
        if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
            return permit;
        }
        if self.connections.is_message_due("connections") {
            let what = "the longest idle ones are closed, or others wait";
            self.deps.log.event("connection-limit", &format!("{max_connections} connections are open; {what}"));
        }
        let mut permit = pin!(Arc::clone(permits).acquire_owned());
        loop {
            self.connections.close_idle();
            if let Ok(permit) = timeout(IDLE_CHECK_INTERVAL, permit.as_mut()).await {
                return permit.expect("the semaphore is never closed");
            }
        }
    }

    /// Waits until all connections have ended.
    async fn join_all(&self, connections: &mut JoinSet<()>) {
        while let Some(result) = connections.join_next().await {
            self.log_panic(Some(result));
        }
    }

    /// Logs a connection task that panicked.
    fn log_panic(&self, result: Option<Result<(), JoinError>>) {
        if let Some(Err(error)) = result
            && error.is_panic()
        {
            self.deps.log.event("panicked", &describe_error(&error));
        }
    }

    async fn handle_connection(self: &Arc<Self>, socket: TcpStream, address: IpAddr, routers: Routers) {
        let current = self.current();
        let (tls, max) = (current.tls.clone(), current.config.serve.max_connections_per_address);
        drop(current);
        let Some(connection) = self.connections.open(address, max) else {
            self.log_address_limit(address, max.unwrap_or_default());
            // The handshake of TLS would cost more than the connection.
            if tls.is_none()
                && let Some(rejected) = self.connections.open_rejected(address)
            {
                let served = self.serve_plain(socket, Arc::clone(&rejected.activity), routers, max);
                let _ = timeout(REJECTION_TIMEOUT, served).await;
            }
            return;
        };
        let activity = Arc::clone(&connection.activity);
        match tls {
            None => self.serve_plain(socket, activity, routers, None).await,
            Some(tls) => {
                let (socket, conn_info) = self.prepare_socket(socket, &activity, None);
                let handshake = timeout(self.deps.limits.tls_handshake_timeout, tls.accept(socket));
                tokio::select! {
                    // A client that fails the handshake could not read a response.
                    socket = handshake => if let Ok(Ok(socket)) = socket {
                        serve_connection(Arc::clone(self), socket, activity, routers, conn_info).await;
                    },
                    () = activity.must_close() => {}
                }
            }
        }
    }

    /// Serves a connection without TLS. With `max_connections`, all of its requests are rejected, except health checks.
    async fn serve_plain(
        self: &Arc<Self>,
        socket: TcpStream,
        activity: Arc<Activity>,
        routers: Routers,
        max_connections: Option<usize>,
    ) {
        let (socket, conn_info) = self.prepare_socket(socket, &activity, max_connections);
        serve_connection(Arc::clone(self), socket, activity, routers, conn_info).await;
    }

    fn prepare_socket(
        &self,
        socket: TcpStream,
        activity: &Activity,
        max_connections: Option<usize>,
    ) -> (WriteTimeoutStream<TcpStream>, ConnInfo) {
        let loopback = self.listen_ip.get().is_some_and(IpAddr::is_loopback);
        let timeout = self.deps.limits.write_timeout;
        let socket = WriteTimeoutStream::new(socket, timeout, activity.pending_write.clone());
        (socket, ConnInfo { loopback, max_connections })
    }

    fn log_address_limit(&self, address: IpAddr, max: usize) {
        if self.connections.is_message_due("address") {
            let count = plural(max, "connection");
            let text =
                format!("{address} has {count}, as many as max_connections_per_address allows; more are rejected");
            self.deps.log.event("connection-limit", &text);
        }
    }
}

/// Counts a connection in the metrics until dropped.
struct ConnectionGauge(Arc<Gateway>);

impl ConnectionGauge {
    fn new(gateway: &Arc<Gateway>) -> Self {
        gateway.metrics.connection_opened();
        Self(Arc::clone(gateway))
    }
}

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        self.0.metrics.connection_closed();
    }
}

/// Accepts the next connection.
async fn accept(listener: &TcpListener, gateway: &Gateway) -> (std::net::TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                // Chunks are sent without delay.
                let _ = socket.set_nodelay(true);
                match socket.into_std() {
                    Ok(socket) => return (socket, address.ip()),
                    Err(error) => gateway.deps.log.event("accept-failed", &describe_error(&error)),
                }
            }
            // The client disconnected before its connection was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                gateway.deps.log.event("accept-failed", &describe_error(&error));
                sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

/// Serves the requests of one connection in sequence.
pub(super) async fn serve_connection<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    gateway: Arc<Gateway>,
    socket: S,
    activity: Arc<Activity>,
    routers: Routers,
    conn_info: ConnInfo,
) {
    let (unread_sender, unread) = mpsc::channel(1);
    let (service_gateway, request_activity) = (Arc::clone(&gateway), Arc::clone(&activity));
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (gateway, routers) = (Arc::clone(&service_gateway), routers.clone());
        let busy = request_activity.begin_request();
        let expects_continue = request.headers().contains_key(http::header::EXPECT);
        let mut request =
            request.map(|body| axum::body::Body::new(UploadBody::new(body, &unread_sender, expects_continue)));
        request.extensions_mut().insert(request_activity.pending_write.clone());
        async move {
            let response = gateway.handle(routers, conn_info, request).await;
            Ok::<_, Infallible>(response.map(|body| BusyBody::new(body, busy)))
        }
    });
    let server = http_server(&gateway);
    let mut connection = pin!(server.serve_connection(TokioIo::new(socket), service));
    let mut read_on = pin!(upload::read_on(unread, gateway.deps.limits));
    tokio::select! {
        // Disconnects are not errors; only invalid HTTP is counted.
        result = connection.as_mut() => {
            if result.is_err_and(|error| error.is_parse()) {
                gateway.metrics.count_malformed();
            }
            return;
        }
        () = read_on.as_mut() => {}
        () = activity.must_close() => return,
        () = gateway.phase.reached(Phase::Draining) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection.as_mut() => return,
        () = read_on.as_mut() => {}
        () = gateway.phase.reached(Phase::Ending) => {}
    }
    // Polls the request once more, which sees that it has to end.
    tokio::select! {
        _ = connection => {}
        () = read_on => {}
    }
}

/// HTTP/1.1 with the limits of the gateway.
fn http_server(gateway: &Gateway) -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(gateway.current().config.serve.idle)
        .max_buf_size(gateway.deps.limits.max_buffer_bytes.max(MIN_BUFFER_BYTES))
        .half_close(false)
        // Events are small: copying them into one buffer costs less than a vectored write.
        .writev(false);
    server
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // On Windows this option lets two servers bind one address.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Binds the address `listen` (`HOST:PORT`); an address in use is an error.
pub(crate) async fn listen(listen: &str) -> io::Result<(TcpListener, SocketAddr)> {
    let mut last_error = io::Error::new(io::ErrorKind::InvalidInput, "the host name has no address");
    for address in lookup_host(listen).await? {
        match bind(address) {
            Ok(listener) => {
                let address = listener.local_addr()?;
                return Ok((listener, address));
            }
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}
