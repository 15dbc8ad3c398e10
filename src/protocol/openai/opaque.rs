//! Replies that are only passed on: vectors, rankings, pictures.
//!
//! Owns what can be told of them without knowing what they are: whether they are whole, whether they are an error, and
//! what they used. Refuses to look at what they hold.

use serde::Deserialize;

use super::{
    decode::{error_in, is_done},
    error,
    usage::WireUsage,
};
use crate::{
    model::{Delta, DeltaKind, FinishReason, Service},
    protocol::{ApiError, Decoder, Ending, Flow, Frame, FrameKind, ServerKind, StreamEnd, framing::lenient::Object},
};

/// Where it is asked for, below the base URL.
pub(super) fn path(service: Service) -> &'static str {
    match service {
        Service::Completions => "completions",
        Service::Embeddings => "embeddings",
        Service::Rerank => "rerank",
        Service::Images => "images/generations",
    }
}

/// Reads one reply that is only passed on.
#[derive(Debug)]
pub(super) struct OpaqueDecoder {
    server: ServerKind,
    any: bool,
}

#[derive(Deserialize)]
struct Used {
    #[serde(default)]
    usage: Object<WireUsage>,
}

impl OpaqueDecoder {
    pub(super) fn new(server: ServerKind) -> Self {
        Self { server, any: false }
    }

    fn came(&self) -> super::decode::Came {
        if self.any { super::decode::Came::Answer } else { super::decode::Came::Nothing }
    }

    fn object(&mut self, json: &str, event: &[u8], out: &mut Vec<Delta>) -> Result<(), ApiError> {
        if let Some(is_error) = error_in(json, event) {
            return Err(error::in_stream(&is_error, self.server, self.came()));
        }
        self.any = true;
        out.push(Delta { choice: 0, kind: DeltaKind::Opaque(json.len()) });
        let used = serde_json::from_str::<Used>(json).ok().and_then(|used| used.usage.0?.usage());
        out.extend(used.map(|usage| Delta { choice: 0, kind: DeltaKind::Usage(usage) }));
        Ok(())
    }
}

impl Decoder for OpaqueDecoder {
    fn frame(&mut self, frame: &Frame, out: &mut Vec<Delta>) -> Result<Flow, ApiError> {
        let data = std::str::from_utf8(&frame.data).expect("the framer delivers valid UTF-8").trim();
        match frame.kind {
            FrameKind::Page => Err(error::page(&frame.data, self.server)),
            FrameKind::Body if !is_json(data) => Ok(Flow::Garbled),
            FrameKind::Body => self.object(data, b"", out).map(|()| Flow::End),
            FrameKind::Event if is_done(data) => Ok(Flow::End),
            FrameKind::Event if data.is_empty() => Ok(Flow::More),
            FrameKind::Event if error_in(data, &frame.event).is_none() && !is_json(data) => Ok(Flow::Garbled),
            FrameKind::Event => self.object(data, &frame.event, out).map(|()| Flow::More),
        }
    }

    fn finish(&mut self, end: StreamEnd, _out: &mut Vec<Delta>) -> Result<Ending, ApiError> {
        Ok(match end {
            _ if !self.any => Ending::Empty,
            // Nothing says when such a stream is over but its end.
            StreamEnd::Hard | StreamEnd::Eof => Ending::Finished(FinishReason::Stop),
            StreamEnd::Broken => Ending::Cut,
        })
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::ErrorClass, protocol::reply_reader::ReplyReader};

    fn read(body: &[u8], end: StreamEnd) -> Result<(Ending, Vec<DeltaKind>), ErrorClass> {
        let mut reader = ReplyReader::new(Box::new(OpaqueDecoder::new(ServerKind::Other)));
        let mut out = Vec::new();
        reader.push(body, &mut out).map_err(|error| error.class)?;
        let ending = reader.finish(end, &mut out).map_err(|error| error.class)?;
        Ok((ending, out.into_iter().map(|delta| delta.kind).collect()))
    }

    #[test]
    fn a_whole_body_is_whole_and_says_what_it_used() {
        let body = br#"{"data":[{"embedding":"AACAPw=="}],"usage":{"prompt_tokens":5,"total_tokens":5}}"#;
        let (ending, kinds) = read(body, StreamEnd::Eof).expect("an answer");
        assert_eq!(ending, Ending::Finished(FinishReason::Stop));
        assert_eq!(kinds[0], DeltaKind::Opaque(body.len()));
        assert!(matches!(kinds[1], DeltaKind::Usage(usage) if usage.input == Some(5)));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        assert_eq!(read(br#"{"data":[{"embed"#, StreamEnd::Eof).expect_err("cut"), ErrorClass::Garbled);
        assert_eq!(read(b"", StreamEnd::Eof).map(|(ending, _)| ending), Ok(Ending::Empty));
        assert_eq!(read(b"<html>no</html>", StreamEnd::Eof), Err(ErrorClass::Garbage));
        let refused = read(br#"{"error":{"message":"no","code":"rate_limit_exceeded"}}"#, StreamEnd::Eof);
        assert!(refused.is_err(), "{refused:?}");
        let broken = read(b"data: {\"b64_json\":\"A\"}\n\n", StreamEnd::Broken).map(|(ending, _)| ending);
        assert_eq!(broken, Ok(Ending::Cut));
    }
}
