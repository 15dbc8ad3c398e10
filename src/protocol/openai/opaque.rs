//! Detects completeness, errors and usage of pass-through responses (embeddings, rankings, images).

use serde::Deserialize;

use super::{
    decode::{find_error, is_end_signal},
    error,
    stream_errors::{OutputSeen, StreamErrors},
    usage::WireUsage,
};
use crate::{
    model::{Delta, DeltaKind, FinishReason, Operation},
    protocol::{CallError, Decoder, Flow, Frame, FrameKind, StreamEnd, StreamOutcome, framing::lenient::LenientObject},
};

/// The path of an operation below the base URL.
pub(super) fn path(operation: Operation) -> &'static str {
    match operation {
        Operation::Completions => "completions",
        Operation::Embeddings => "embeddings",
        Operation::Rerank => "rerank",
        Operation::Images => "images/generations",
    }
}

/// Decodes one pass-through response.
#[derive(Debug)]
pub(super) struct OpaqueDecoder {
    errors: StreamErrors,
}

#[derive(Deserialize)]
struct UsageField {
    #[serde(default)]
    usage: LenientObject<WireUsage>,
}

impl OpaqueDecoder {
    pub(super) fn new(errors: StreamErrors) -> Self {
        Self { errors }
    }

    fn decode_object(&mut self, json: &str, event: &[u8], out: &mut Vec<Delta>) -> Result<(), CallError> {
        if let Some(body) = find_error(json, event) {
            return Err(self.errors.error(&body));
        }
        self.errors.record_output(OutputSeen::Answer);
        out.push(Delta { choice: 0, kind: DeltaKind::Opaque(json.len()) });
        let usage = serde_json::from_str::<UsageField>(json).ok().and_then(|body| body.usage.0?.to_usage());
        out.extend(usage.map(|usage| Delta { choice: 0, kind: DeltaKind::Usage(usage) }));
        Ok(())
    }
}

impl Decoder for OpaqueDecoder {
    /// What was passed through undecoded is complete only at its end.
    fn finish_reason(&self) -> Option<FinishReason> {
        None
    }

    fn decode_frame(&mut self, frame: &Frame, out: &mut Vec<Delta>) -> Result<Flow, CallError> {
        let data = std::str::from_utf8(&frame.data).expect("the framer delivers valid UTF-8").trim();
        match frame.kind {
            FrameKind::Page => Err(error::page_error(&frame.data, self.errors.server)),
            FrameKind::Body if !is_json(data) => Ok(Flow::InvalidChunk),
            FrameKind::Body => self.decode_object(data, b"", out).map(|()| Flow::End),
            FrameKind::Event if is_end_signal(data) => Ok(Flow::End),
            FrameKind::Event if data.is_empty() => Ok(Flow::More),
            FrameKind::Event if find_error(data, &frame.event).is_none() && !is_json(data) => Ok(Flow::InvalidChunk),
            FrameKind::Event => self.decode_object(data, &frame.event, out).map(|()| Flow::More),
        }
    }

    fn finish(&mut self, end: StreamEnd, _out: &mut Vec<Delta>) -> Result<StreamOutcome, CallError> {
        Ok(match end {
            _ if self.errors.output_seen == OutputSeen::Nothing => StreamOutcome::Empty,
            // The stream may have no end signal, so the regular end of the body is sufficient.
            StreamEnd::EndSignal | StreamEnd::Eof => StreamOutcome::Finished(FinishReason::Stop),
            StreamEnd::Broken => StreamOutcome::Incomplete,
        })
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        model::ErrorClass,
        protocol::{ServerKind, reply_reader::ReplyReader},
    };

    fn decode(body: &[u8], end: StreamEnd) -> Result<(StreamOutcome, Vec<DeltaKind>), ErrorClass> {
        let errors = StreamErrors::new(ServerKind::Other, Bytes::new());
        let mut reader = ReplyReader::new(Box::new(OpaqueDecoder::new(errors)));
        let mut out = Vec::new();
        reader.push(body, &mut out).map_err(|error| error.class)?;
        let outcome = reader.finish(end, &mut out).map_err(|error| error.class)?;
        Ok((outcome, out.into_iter().map(|delta| delta.kind).collect()))
    }

    #[test]
    fn complete_body_is_finished_and_reports_usage() {
        let body = br#"{"data":[{"embedding":"AACAPw=="}],"usage":{"prompt_tokens":5,"total_tokens":5}}"#;
        let (outcome, kinds) = decode(body, StreamEnd::Eof).expect("valid response");
        assert_eq!(outcome, StreamOutcome::Finished(FinishReason::Stop));
        assert_eq!(kinds[0], DeltaKind::Opaque(body.len()));
        assert!(matches!(kinds[1], DeltaKind::Usage(usage) if usage.input == Some(5)));
    }

    #[test]
    fn truncated_empty_html_and_error_bodies_are_not_answers() {
        assert_eq!(
            decode(br#"{"data":[{"embed"#, StreamEnd::Eof).expect_err("truncated JSON"),
            ErrorClass::InvalidChunk
        );
        assert_eq!(decode(b"", StreamEnd::Eof).map(|(outcome, _)| outcome), Ok(StreamOutcome::Empty));
        assert_eq!(decode(b"<html>no</html>", StreamEnd::Eof), Err(ErrorClass::InvalidResponse));
        let rejected = decode(br#"{"error":{"message":"no","code":"rate_limit_exceeded"}}"#, StreamEnd::Eof);
        assert!(rejected.is_err(), "{rejected:?}");
        let interrupted = decode(b"data: {\"b64_json\":\"A\"}\n\n", StreamEnd::Broken).map(|(outcome, _)| outcome);
        assert_eq!(interrupted, Ok(StreamOutcome::Incomplete));
    }
}
