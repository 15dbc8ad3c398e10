//! Reads on the body of a request that was answered before the client had sent all of it.
//!
//! A client that is still uploading does not read the answer: if the connection were closed at once, it would see a
//! broken pipe and no status. The rest of the body is read, and dropped, by the task of the connection.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{sync::mpsc, time::timeout};

use super::limits::GatewayLimits;

/// Takes bodies that were not read to their end.
pub(super) type UnreadBodies<B> = mpsc::Sender<B>;

/// A request body that is handed over when it is dropped before its end.
pub(super) struct UploadBody<B: Body> {
    body: Option<B>,
    unread: Option<UnreadBodies<B>>,
}

impl<B: Body> UploadBody<B> {
    /// A body that is handed to `unread`. `expects_continue`: the client waits for a go-ahead before it sends the body, so
    /// there is nothing to read.
    pub(super) fn new(body: B, unread: &UnreadBodies<B>, expects_continue: bool) -> Self {
        Self { body: Some(body), unread: (!expects_continue).then(|| unread.clone()) }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for UploadBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: Body> Drop for UploadBody<B> {
    fn drop(&mut self) {
        if let (Some(body), Some(unread)) = (self.body.take(), &self.unread)
            && !body.is_end_stream()
        {
            // The requests of a connection come one after the other, so there is room unless the connection has ended.
            let _ = unread.try_send(body);
        }
    }
}

/// Reads the bodies of a connection to their end, within limits. Never completes.
pub(super) async fn read_on<B>(mut unread: mpsc::Receiver<B>, limits: GatewayLimits)
where
    B: Body<Data = Bytes> + Unpin,
{
    while let Some(mut body) = unread.recv().await {
        let read = async {
            let mut length = 0;
            // A client that sends no more reads the answer, and waits for the end of the connection.
            while let Ok(Some(Ok(frame))) = timeout(limits.unread_body_silence, body.frame()).await {
                length += frame.data_ref().map_or(0, Bytes::len);
                if length > limits.unread_body_bytes {
                    break;
                }
            }
        };
        // After the limit, dropping the body closes the connection.
        let _ = timeout(limits.unread_body_timeout, read).await;
    }
    std::future::pending::<()>().await;
}
