//! Reads token counts from all known fields and normalizes them: input includes cached tokens, output includes
//! reasoning tokens.

use serde::Deserialize;

use crate::{
    model::Usage,
    protocol::framing::lenient::{LenientNumber, LenientObject},
};

#[derive(Debug, Default, Deserialize)]
pub(super) struct WireUsage {
    #[serde(default)]
    prompt_tokens: LenientNumber,
    #[serde(default)]
    completion_tokens: LenientNumber,
    #[serde(default)]
    total_tokens: LenientNumber,
    #[serde(default)]
    input_tokens: LenientNumber,
    #[serde(default)]
    output_tokens: LenientNumber,
    /// Sent by DeepSeek.
    #[serde(default)]
    prompt_cache_hit_tokens: LenientNumber,
    /// Sent by Moonshot.
    #[serde(default)]
    cached_tokens: LenientNumber,
    #[serde(default)]
    prompt_tokens_details: LenientObject<PromptDetails>,
    #[serde(default)]
    input_tokens_details: LenientObject<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: LenientObject<CompletionDetails>,
    #[serde(default)]
    output_tokens_details: LenientObject<CompletionDetails>,
}

#[derive(Debug, Default, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: LenientNumber,
}

#[derive(Debug, Default, Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: LenientNumber,
}

impl WireUsage {
    /// The normalized counts; `None` when neither input nor output is reported.
    pub(super) fn to_usage(&self) -> Option<Usage> {
        let prompt_details = self.prompt_tokens_details.0.as_ref().or(self.input_tokens_details.0.as_ref());
        let completion_details = self.completion_tokens_details.0.as_ref().or(self.output_tokens_details.0.as_ref());
        let input = self.prompt_tokens.0.or(self.input_tokens.0);
        let output = self.completion_tokens.0.or(self.output_tokens.0);
        let reasoning = completion_details.and_then(|details| details.reasoning_tokens.0);
        let cached = prompt_details
            .and_then(|details| details.cached_tokens.0)
            .or(self.prompt_cache_hit_tokens.0)
            .or(self.cached_tokens.0);
        if input.is_none() && output.is_none() {
            return None;
        }
        Some(Usage {
            input,
            output: self.output_with_reasoning(input, output, reasoning),
            cached,
            reasoning,
            estimated: false,
        })
    }

    /// Adds the reasoning tokens if the total shows that the completion tokens do not include them, as with xAI.
    fn output_with_reasoning(&self, input: Option<u64>, output: Option<u64>, reasoning: Option<u64>) -> Option<u64> {
        match (input, output, reasoning, self.total_tokens.0) {
            (Some(input), Some(output), Some(reasoning), Some(total))
                if reasoning > 0 && input.saturating_add(output).saturating_add(reasoning) == total =>
            {
                Some(output + reasoning)
            }
            _ => output,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_usage(json: &str) -> Option<Usage> {
        serde_json::from_str::<WireUsage>(json).expect("lenient fields accept any type").to_usage()
    }

    #[test]
    fn all_variants_give_the_same_usage() {
        let want = Usage { input: Some(11), output: Some(7), cached: Some(8), reasoning: Some(2), estimated: false };
        for json in [
            r#"{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":8},"completion_tokens_details":{"reasoning_tokens":2}}"#,
            r#"{"prompt_tokens":11,"completion_tokens":7,"prompt_cache_hit_tokens":8,"completion_tokens_details":{"reasoning_tokens":2}}"#,
            r#"{"prompt_tokens":11,"completion_tokens":5,"total_tokens":18,"cached_tokens":8,"completion_tokens_details":{"reasoning_tokens":2}}"#,
            r#"{"input_tokens":11,"output_tokens":7,"input_tokens_details":{"cached_tokens":8},"output_tokens_details":{"reasoning_tokens":2}}"#,
        ] {
            assert_eq!(parse_usage(json), Some(want), "{json}");
        }
    }

    #[test]
    fn missing_counts_are_no_usage() {
        assert_eq!(parse_usage("{}"), None);
        assert_eq!(parse_usage(r#"{"prompt_tokens":null,"prompt_tokens_details":null}"#), None);
    }
}
