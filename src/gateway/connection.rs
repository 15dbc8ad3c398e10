//! Connections of clients: accepted, limited, and ended.
//!
//! Owns that no client costs another: one that says nothing, speaks slowly or takes nothing loses its connection, and when
//! there are too many the next ones wait. When the server is stopped nothing new is accepted, and what is under way has its
//! time to end. Refuses to know what is said.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    sync::{Semaphore, watch},
    task::{JoinError, JoinSet},
    time::{Instant, Sleep, sleep, timeout},
};

use super::{Gateway, Workers};

/// How long a connection may be idle, or take to say what it wants.
const IDLE: Duration = Duration::from_secs(75);
/// How long a client may take nothing of what it is sent.
pub(super) const STALLED: Duration = Duration::from_secs(300);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The most that is read of a request's head, or kept to be written.
const BUFFER: usize = 32 * 1024;
/// As many may wait to be accepted: whoever comes when there are more waits for a second.
const BACKLOG: u32 = 4096;
/// When the system has no room for another connection, it is asked again after so long.
const NO_ROOM: Duration = Duration::from_millis(100);

/// How a request came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    /// At an address that only this machine can reach.
    pub(super) loopback: bool,
}

impl Gateway {
    /// Serves what comes to `listener`, `most` connections at once, on the threads of `workers`, until `stop` resolves; then
    /// whatever is under way may end for as long as the config says. How many connections had to be closed after that.
    pub async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        workers: &Workers,
        most: usize,
        stop: impl Future<Output = ()>,
    ) -> usize {
        let reach = listener.local_addr().map(|address| address.ip());
        let loopback = reach.as_ref().is_ok_and(IpAddr::is_loopback);
        if let Ok(reach) = reach {
            self.reach.get_or_init(|| reach);
        }
        let (places, router) = (Arc::new(Semaphore::new(most)), self.router());
        let (stopping, _) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let place = Arc::clone(&places).acquire_owned();
            let next = async { (place.await.expect("it is never closed"), accepted(&listener, self).await) };
            let (place, socket) = tokio::select! {
                () = &mut stop => break,
                ended = connections.join_next(), if !connections.is_empty() => {
                    self.note(ended);
                    continue;
                }
                next = next => next,
            };
            let (gateway, router, stopping) = (Arc::clone(self), router.clone(), stopping.subscribe());
            let (worker, seat) = workers.least_busy();
            let connection = async move {
                let _counted = Connected::begin(&gateway);
                // It is known to this thread's event loop so far, and not to the other's.
                match TcpStream::from_std(socket) {
                    Ok(socket) => gateway.connection(socket, router, Arrived { loopback }, stopping).await,
                    Err(error) => gateway.outside.log.event("accept-failed", &error.to_string()),
                }
                drop((place, seat));
            };
            connections.spawn_on(connection, worker);
        }
        self.stopping.store(true, Ordering::Relaxed);
        drop(listener);
        stopping.send_replace(true);
        let all = async {
            while let Some(ended) = connections.join_next().await {
                self.note(Some(ended));
            }
        };
        // What has not ended by then is cut off.
        let _ = timeout(self.current().config.serve.drain, all).await;
        self.cut_off();
        let left = connections.len();
        connections.shutdown().await;
        left
    }

    /// A connection is over. One whose code panicked has a line in the log.
    fn note(&self, ended: Option<Result<(), JoinError>>) {
        if let Some(Err(error)) = ended
            && error.is_panic()
        {
            self.outside.log.event("panicked", &error.to_string());
        }
    }

    async fn connection(
        self: &Arc<Self>,
        socket: TcpStream,
        router: Router,
        arrived: Arrived,
        stopping: watch::Receiver<bool>,
    ) {
        let tls = self.current().tls.clone();
        let socket = Impatient::new(socket);
        let unsent = socket.unsent();
        match tls {
            None => speak(Arc::clone(self), (socket, unsent), router, arrived, stopping).await,
            // Whoever does not finish shaking hands, or cannot, is told nothing that it would understand.
            Some(tls) => {
                if let Ok(Ok(socket)) = timeout(HANDSHAKE, tls.accept(socket)).await {
                    speak(Arc::clone(self), (socket, unsent), router, arrived, stopping).await;
                }
            }
        }
    }
}

/// One connection more, until dropped.
struct Connected(Arc<Gateway>);

impl Connected {
    fn begin(gateway: &Arc<Gateway>) -> Self {
        gateway.metrics.connected();
        Self(Arc::clone(gateway))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.metrics.disconnected();
    }
}

/// The next connection.
async fn accepted(listener: &TcpListener, gateway: &Gateway) -> std::net::TcpStream {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                // Pieces are to go out when they are written.
                let _ = socket.set_nodelay(true);
                match socket.into_std() {
                    Ok(socket) => return socket,
                    Err(error) => gateway.outside.log.event("accept-failed", &error.to_string()),
                }
            }
            // It was gone before it was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                gateway.outside.log.event("accept-failed", &error.to_string());
                sleep(NO_ROOM).await;
            }
        }
    }
}

/// Answers the requests of one connection, one after the other.
pub(super) async fn speak<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    gateway: Arc<Gateway>,
    (socket, unsent): (S, Unsent),
    router: Router,
    arrived: Arrived,
    mut stopping: watch::Receiver<bool>,
) {
    let counted = Arc::clone(&gateway);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (gateway, router) = (Arc::clone(&gateway), router.clone());
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(unsent.clone());
        async move { Ok::<_, Infallible>(gateway.answer(router, arrived, request).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(IDLE).half_close(false).max_buf_size(BUFFER);
    // Events are small: copying them together costs less than telling the system of each.
    server.writev(false);
    let mut connection = pin!(server.serve_connection(TokioIo::new(socket), service));
    tokio::select! {
        // A client that breaks off is its own affair; one that speaks no HTTP is counted.
        ended = connection.as_mut() => {
            if ended.is_err_and(|error| error.is_parse()) {
                counted.metrics.malformed();
            }
            return;
        }
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Whether something was written that the client does not take yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsent(Arc<AtomicBool>);

impl Unsent {
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that ends when nothing it sends is taken for too long.
pub(super) struct Impatient<S> {
    inner: S,
    unsent: Unsent,
    /// When it is too long, while nothing is taken.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, unsent: Unsent::default(), stalled: None }
    }

    pub(super) fn unsent(&self) -> Unsent {
        self.unsent.clone()
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.unsent.0.store(done.is_pending(), Ordering::Relaxed);
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + STALLED)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.watch(context, done)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.inner).poll_write_vectored(context, pieces);
        this.watch(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Elsewhere that lets two servers have one address.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Opens `listen`; an address that is taken is an error.
pub async fn listen(listen: &str) -> io::Result<(TcpListener, SocketAddr)> {
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "it has no address");
    for address in lookup_host(listen).await? {
        match listener(address) {
            Ok(listener) => {
                let address = listener.local_addr()?;
                return Ok((listener, address));
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
