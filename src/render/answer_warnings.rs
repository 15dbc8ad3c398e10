//! Formats warnings about a complete answer, such as a reached token limit or an empty text.

use crate::{
    engine::AccumulatedAnswer,
    model::{FinishReason, sanitize::one_line},
};

/// The warnings about a complete answer, one per line; `None` if there are none.
pub(super) fn warnings(accumulated: &AccumulatedAnswer, reason: Option<&FinishReason>) -> Option<String> {
    let choices_warning = "warning: the service sent several choices; only the first is shown";
    let lines: Vec<_> = accumulated
        .has_other_choices
        .then(|| choices_warning.to_owned())
        .into_iter()
        .chain(finish_warning(accumulated, reason))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// The warning about how the answer ended.
fn finish_warning(accumulated: &AccumulatedAnswer, reason: Option<&FinishReason>) -> Option<String> {
    let has_content = accumulated.has_content;
    let has_reasoning = accumulated.output_counter.tokens() > 0;
    Some(match reason {
        Some(FinishReason::Length) if !has_content && has_reasoning => {
            "warning: the answer is empty: the token limit was used up by reasoning (raise --max-tokens)".to_owned()
        }
        Some(FinishReason::Length) => {
            "warning: the answer stopped at the token limit (finish_reason: length)".to_owned()
        }
        Some(FinishReason::ContentFilter) if !has_content => {
            "warning: a content filter withheld the answer (finish_reason: content_filter)".to_owned()
        }
        Some(FinishReason::ContentFilter) => {
            "warning: a content filter ended the answer (finish_reason: content_filter)".to_owned()
        }
        Some(FinishReason::ToolCalls) => {
            let names: Vec<_> = accumulated.content.tool_calls.iter().map(|call| one_line(&call.name)).collect();
            format!("warning: the model requested tool calls ({}), which are not executed", names.join(", "))
        }
        Some(FinishReason::Other(other)) => {
            format!("warning: the answer ended with an unknown finish_reason: \"{}\"", one_line(other))
        }
        Some(FinishReason::Stop) | None if accumulated.is_empty() => {
            let detail = if has_reasoning { ": only reasoning was received" } else { "" };
            format!("warning: the answer is empty{detail}")
        }
        Some(FinishReason::Stop | FinishReason::Error(_)) | None => return None,
    })
}
