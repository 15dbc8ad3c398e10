//! Accepts, limits and closes client connections.
//!
//! A connection that stays idle, sends its head too slowly or does not read is closed. Over the connection limit, new
//! connections wait in the backlog. On shutdown no connection is accepted; requests in flight get `drain` to finish.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    sync::{Semaphore, mpsc, watch},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};

use super::{
    Gateway, Workers,
    request_context::ConnInfo,
    routes::Routers,
    upload::{self, UploadBody},
    write_timeout::{PendingWrite, WriteTimeoutStream},
};

use crate::model::describe_error;

/// The smallest buffer that hyper accepts.
const MIN_BUFFER_BYTES: usize = 8192;
/// Connections that may wait to be accepted. A client over this limit retries its connection attempt after 1 s.
const BACKLOG: u32 = 4096;
/// Delay after a failed `accept`, such as when the process has no file descriptors left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

impl Gateway {
    /// Serves up to `max_connections` connections of `listener` on the threads of `workers` until `stop` resolves. Then
    /// requests in flight get the configured `drain` time to finish. Returns the number of connections closed after
    /// that time.
    pub async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        workers: &Workers,
        max_connections: usize,
        stop: impl Future<Output = ()>,
    ) -> usize {
        let listen_ip = listener.local_addr().map(|address| address.ip());
        let loopback = listen_ip.as_ref().is_ok_and(IpAddr::is_loopback);
        if let Ok(listen_ip) = listen_ip {
            self.listen_ip.get_or_init(|| listen_ip);
        }
        let (permits, routers) = (Arc::new(Semaphore::new(max_connections)), self.routers());
        let (stopping, _) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let permit = Arc::clone(&permits).acquire_owned();
            let next = async { (permit.await.expect("the semaphore is never closed"), accept(&listener, self).await) };
            let (permit, socket) = tokio::select! {
                () = &mut stop => break,
                result = connections.join_next(), if !connections.is_empty() => {
                    self.log_panic(result);
                    continue;
                }
                next = next => next,
            };
            let (gateway, routers, stopping) = (Arc::clone(self), routers.clone(), stopping.subscribe());
            let (worker, guard) = workers.least_busy();
            let connection = async move {
                let _gauge = ConnectionGauge::new(&gateway);
                // Registers the socket with the event loop of this worker.
                match TcpStream::from_std(socket) {
                    Ok(socket) => gateway.handle_connection(socket, routers, ConnInfo { loopback }, stopping).await,
                    Err(error) => gateway.deps.log.event("accept-failed", &describe_error(&error)),
                }
                drop((permit, guard));
            };
            connections.spawn_on(connection, worker);
        }
        self.stopping.store(true, Ordering::Relaxed);
        drop(listener);
        stopping.send_replace(true);
        let all_ended = async {
            while let Some(result) = connections.join_next().await {
                self.log_panic(Some(result));
            }
        };
        // Requests that have not finished by then are aborted.
        let _ = timeout(self.current().config.serve.drain, all_ended).await;
        self.abort_remaining();
        let aborted_count = connections.len();
        connections.shutdown().await;
        aborted_count
    }

    /// Logs a connection task that panicked.
    fn log_panic(&self, result: Option<Result<(), JoinError>>) {
        if let Some(Err(error)) = result
            && error.is_panic()
        {
            self.deps.log.event("panicked", &describe_error(&error));
        }
    }

    async fn handle_connection(
        self: &Arc<Self>,
        socket: TcpStream,
        routers: Routers,
        conn_info: ConnInfo,
        stopping: watch::Receiver<bool>,
    ) {
        let tls = self.current().tls.clone();
        let socket = WriteTimeoutStream::new(socket, self.deps.limits.write_timeout);
        let pending_write = socket.pending_write();
        match tls {
            None => serve_connection(Arc::clone(self), (socket, pending_write), routers, conn_info, stopping).await,
            // A client that fails the handshake could not read a response.
            Some(tls) => {
                if let Ok(Ok(socket)) = timeout(self.deps.limits.tls_handshake_timeout, tls.accept(socket)).await {
                    serve_connection(Arc::clone(self), (socket, pending_write), routers, conn_info, stopping).await;
                }
            }
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
async fn accept(listener: &TcpListener, gateway: &Gateway) -> std::net::TcpStream {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                // Chunks are sent without delay.
                let _ = socket.set_nodelay(true);
                match socket.into_std() {
                    Ok(socket) => return socket,
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
    (socket, pending_write): (S, PendingWrite),
    routers: Routers,
    conn_info: ConnInfo,
    mut stopping: watch::Receiver<bool>,
) {
    let service_gateway = Arc::clone(&gateway);
    let (unread_sender, unread) = mpsc::channel(1);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (gateway, routers) = (Arc::clone(&service_gateway), routers.clone());
        let expects_continue = request.headers().contains_key(http::header::EXPECT);
        let mut request =
            request.map(|body| axum::body::Body::new(UploadBody::new(body, &unread_sender, expects_continue)));
        request.extensions_mut().insert(pending_write.clone());
        async move { Ok::<_, Infallible>(gateway.handle(routers, conn_info, request).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    let limits = gateway.deps.limits;
    server
        .timer(TokioTimer::new())
        .header_read_timeout(gateway.current().config.serve.idle)
        .max_buf_size(limits.max_buffer_bytes.max(MIN_BUFFER_BYTES));
    server.half_close(false);
    // Events are small: copying them into one buffer costs less than a vectored write.
    server.writev(false);
    let mut connection = pin!(server.serve_connection(TokioIo::new(socket), service));
    let mut read_on = pin!(upload::read_on(unread, limits));
    tokio::select! {
        // Disconnects are not errors; only invalid HTTP is counted.
        result = connection.as_mut() => {
            if result.is_err_and(|error| error.is_parse()) {
                gateway.metrics.count_malformed();
            }
            return;
        }
        () = read_on.as_mut() => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = read_on => {}
    }
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
