//! Generates the answer text of a scripted model: sentences with some Markdown, deterministic by seed.
//!
//! The text says that it comes from a mock.

const WORDS: &[&str] = &[
    "a",
    "model",
    "answers",
    "one",
    "token",
    "at",
    "the",
    "time",
    "and",
    "this",
    "mock",
    "does",
    "so",
    "with",
    "care",
    "streams",
    "may",
    "stall",
    "or",
    "break",
    "but",
    "good",
    "clients",
    "say",
    "what",
    "happened",
    "code",
    "`let x = 1;`",
    "**bold**",
    "测试",
    "naïve",
    "data",
    "end",
    "fast",
    "slow",
    "then",
    "waits",
    "for",
    "more",
];

/// Generator for the tokens of one answer.
pub(super) struct TokenGenerator {
    random: fastrand::Rng,
    remaining: u64,
    /// Remaining words of the first sentence.
    opening: std::str::SplitInclusive<'static, char>,
    words_in_sentence: u32,
}

const OPENING: &str = "This is a scripted mock, not a model. ";

impl TokenGenerator {
    pub(super) fn new(seed: u64, count: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { random, remaining: count, opening: OPENING.split_inclusive(' '), words_in_sentence: 0 }
    }
}

impl Iterator for TokenGenerator {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.remaining = self.remaining.checked_sub(1)?;
        if let Some(word) = self.opening.next() {
            return Some(word.to_owned());
        }
        let word = WORDS[self.random.usize(..WORDS.len())];
        self.words_in_sentence += 1;
        let end = match self.words_in_sentence {
            0..8 => " ",
            8..14 if self.random.u8(..) > 40 => " ",
            _ => {
                self.words_in_sentence = 0;
                if self.random.u8(..4) == 0 { ".\n\n" } else { ". " }
            }
        };
        Some(format!("{word}{end}"))
    }
}

/// Seed of one request: FNV-1a hash of the server's seed, the model name and the prompt.
pub(super) fn request_seed(server: u64, model: &str, prompt: &str) -> u64 {
    let bytes = server.to_le_bytes().into_iter().chain(model.bytes()).chain([0]).chain(prompt.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_generates_the_same_text() {
        let generate = |seed| TokenGenerator::new(seed, 50).collect::<String>();
        assert_eq!(generate(1), generate(1));
        assert_ne!(generate(1), generate(2));
        assert_eq!(TokenGenerator::new(1, 50).count(), 50);
        assert!(generate(1).starts_with(OPENING));
        assert_ne!(request_seed(1, "a", "b"), request_seed(1, "b", "a"));
    }
}
