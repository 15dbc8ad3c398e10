//! Tells whether a request has used a pooled connection.
//!
//! A server may close an idle connection at the moment when a request is sent on it. RFC 9112, section 9.3.1, lets a
//! client repeat such a request on a new connection. The HTTP client does not say which connection it used, but it asks
//! its connector for a new one only if none is idle, and does so while it is polled by the request. So a request that has
//! not reached the connector used a pooled connection.

use std::{
    cell::Cell,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

tokio::task_local! {
    /// Whether the request of this task has asked for a new connection.
    static IS_NEW: Cell<bool>;
}

/// Awaits `request`; also returns whether it has used a pooled connection only.
pub(super) async fn track_reuse<T>(request: impl Future<Output = T>) -> (T, bool) {
    IS_NEW
        .scope(Cell::new(false), async {
            let output = request.await;
            (output, !IS_NEW.with(Cell::get))
        })
        .await
}

/// Wraps a connector and notes that a request has asked it for a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrackConnects;

impl<S> Layer<S> for TrackConnects {
    type Service = TrackedConnector<S>;

    fn layer(&self, connector: S) -> Self::Service {
        TrackedConnector(connector)
    }
}

/// A connector whose use is noted.
#[derive(Clone, Debug)]
pub(super) struct TrackedConnector<S>(S);

impl<S: Service<R>, R> Service<R> for TrackedConnector<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, destination: R) -> Self::Future {
        // Outside of a request, the client opens a connection for later ones.
        let _ = IS_NEW.try_with(|is_new| is_new.set(true));
        self.0.call(destination)
    }
}
