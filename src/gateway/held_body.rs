//! A response body that reserves its memory until it is sent.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::engine::memory::{AnswerMemory, AnswerPart};

/// Bytes given to the connection at once: the memory is given back when it has taken the last of them.
const CHUNK_BYTES: usize = 64 * 1024;

/// A body with the memory of its answer.
pub(super) struct HeldBody {
    rest: Bytes,
    _memory: AnswerPart,
}

impl HeldBody {
    pub(super) fn new(body: Bytes, memory: &AnswerMemory) -> Self {
        let mut part = memory.take_kept();
        // What it was made of has been dropped.
        part.shrink_to(body.len());
        Self { rest: body, _memory: part }
    }
}

impl Body for HeldBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.rest.len().min(CHUNK_BYTES);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
