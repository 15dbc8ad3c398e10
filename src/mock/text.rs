//! What a scripted model says: plain sentences with some Markdown, the same for the same seed.
//!
//! Owns the generator. The text says that it is a mock's.

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

/// The tokens of one answer.
pub(super) struct Tokens {
    random: fastrand::Rng,
    left: u64,
    /// Words of the opening sentence still to come.
    opening: std::str::SplitInclusive<'static, char>,
    sentence: u32,
}

const OPENING: &str = "This is a scripted mock, not a model. ";

impl Tokens {
    pub(super) fn new(seed: u64, count: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { random, left: count, opening: OPENING.split_inclusive(' '), sentence: 0 }
    }
}

impl Iterator for Tokens {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.left = self.left.checked_sub(1)?;
        if let Some(word) = self.opening.next() {
            return Some(word.to_owned());
        }
        let word = WORDS[self.random.usize(..WORDS.len())];
        self.sentence += 1;
        let end = match self.sentence {
            0..8 => " ",
            8..14 if self.random.u8(..) > 40 => " ",
            _ => {
                self.sentence = 0;
                if self.random.u8(..4) == 0 { ".\n\n" } else { ". " }
            }
        };
        Some(format!("{word}{end}"))
    }
}

/// A seed for one request: the server's, the model's name and the prompt together (FNV-1a).
pub(super) fn seed(server: u64, model: &str, prompt: &str) -> u64 {
    let bytes = server.to_le_bytes().into_iter().chain(model.bytes()).chain([0]).chain(prompt.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_says_the_same() {
        let say = |seed| Tokens::new(seed, 50).collect::<String>();
        assert_eq!(say(1), say(1));
        assert_ne!(say(1), say(2));
        assert_eq!(Tokens::new(1, 50).count(), 50);
        assert!(say(1).starts_with(OPENING));
        assert_ne!(seed(1, "a", "b"), seed(1, "b", "a"));
    }
}
