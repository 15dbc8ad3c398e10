//! Estimates token counts where a service reported none.
//!
//! The estimate is within about 20 % of the common tokenizers and is always marked as estimated. A real tokenizer is
//! specific to one model, megabytes in size, and still wrong for the next model.

/// Counts the tokens of a streamed text over all chunks: rounding up each chunk separately would double the count of
/// short chunks.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenCounter {
    quarter_tokens: u64,
}

impl TokenCounter {
    /// Counts the next chunk: four characters per token for Latin text, one token per CJK character, and three quarters
    /// of a token per character of other scripts.
    pub fn add(&mut self, text: &str) {
        self.quarter_tokens += text.chars().map(quarter_tokens).sum::<u64>();
    }

    /// Tokens so far, rounded up.
    #[must_use]
    pub fn tokens(self) -> u64 {
        self.quarter_tokens.div_ceil(4)
    }
}

/// Estimated number of tokens in `text`.
#[must_use]
pub fn tokens(text: &str) -> u64 {
    let mut counter = TokenCounter::default();
    counter.add(text);
    counter.tokens()
}

fn quarter_tokens(c: char) -> u64 {
    match c {
        '\0'..='\u{24f}' => 1,
        '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}' => 4,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_per_character_depend_on_the_script() {
        assert_eq!(tokens(""), 0);
        assert_eq!(tokens("a"), 1);
        assert_eq!(tokens("four bytes each!"), 4);
        assert_eq!(tokens("借用检查器"), 5);
    }

    #[test]
    fn chunks_count_as_much_as_the_complete_text() {
        let mut counter = TokenCounter::default();
        "hello there, world".split_inclusive(' ').for_each(|chunk| counter.add(chunk));
        assert_eq!(counter.tokens(), tokens("hello there, world"));
    }
}
