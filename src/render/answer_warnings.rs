//! What should be known of how an answer ended.
//!
//! Owns the wording of these warnings. Refuses to know where anything is shown.

use crate::{
    engine::Account,
    model::{FinishReason, sanitize::one_line},
};

/// What should be known of an answer that is whole, one line each.
pub(super) fn warnings(account: &Account, reason: Option<&FinishReason>) -> Option<String> {
    let choices = "warning: the service sent several choices; only the first is shown";
    let lines: Vec<_> =
        account.other_choices.then(|| choices.to_owned()).into_iter().chain(ending(account, reason)).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// What should be known of how it ended.
fn ending(account: &Account, reason: Option<&FinishReason>) -> Option<String> {
    let any_content = account.any_content;
    let thought = account.tokens.tokens() > 0;
    Some(match reason {
        Some(FinishReason::Length) if !any_content && thought => {
            "warning: the token limit was used up by reasoning: there is no answer (raise --max-tokens)".to_owned()
        }
        Some(FinishReason::Length) => {
            "warning: the answer stopped at the token limit (finish_reason: length)".to_owned()
        }
        Some(FinishReason::ContentFilter) if !any_content => {
            "warning: a content filter withheld the answer (finish_reason: content_filter)".to_owned()
        }
        Some(FinishReason::ContentFilter) => {
            "warning: a content filter ended the answer (finish_reason: content_filter)".to_owned()
        }
        Some(FinishReason::ToolCalls) => {
            let names: Vec<_> = account.answer.tool_calls.iter().map(|call| one_line(&call.name)).collect();
            format!("warning: the model asked for tools ({}), which are not called here", names.join(", "))
        }
        Some(FinishReason::Other(word)) => {
            format!("warning: the answer ended with an unknown finish_reason: {}", one_line(word))
        }
        Some(FinishReason::Stop) | None if account.is_empty() => {
            let thought = if thought { ": there was only reasoning" } else { "" };
            format!("warning: the answer is empty{thought}")
        }
        Some(FinishReason::Stop | FinishReason::Error(_)) | None => return None,
    })
}
