//! Counts tokens where a service reported none.
//!
//! Owns one rough rule, good to a fifth or so for the common tokenisers; every figure from here is marked estimated.
//! Refuses to be a tokeniser: a real one is per model, megabytes large, and still wrong for the next model.

/// Counts over a text that comes in pieces; rounding each piece by itself would double a stream of short ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter {
    quarters: u64,
}

impl Counter {
    /// Counts the next piece: four characters a token for Latin text, one token for each CJK character, and three
    /// quarters of one for each character of other scripts.
    pub fn add(&mut self, text: &str) {
        self.quarters += text.chars().map(quarters).sum::<u64>();
    }

    /// The tokens so far, rounded up.
    #[must_use]
    pub fn tokens(self) -> u64 {
        self.quarters.div_ceil(4)
    }
}

/// Tokens in `text`, roughly.
#[must_use]
pub fn tokens(text: &str) -> u64 {
    let mut counter = Counter::default();
    counter.add(text);
    counter.tokens()
}

fn quarters(c: char) -> u64 {
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
    fn scripts_weigh_what_they_cost() {
        assert_eq!(tokens(""), 0);
        assert_eq!(tokens("a"), 1);
        assert_eq!(tokens("four bytes each!"), 4);
        assert_eq!(tokens("借用检查器"), 5);
    }

    #[test]
    fn pieces_count_as_much_as_the_whole() {
        let mut counter = Counter::default();
        "hello there, world".split_inclusive(' ').for_each(|piece| counter.add(piece));
        assert_eq!(counter.tokens(), tokens("hello there, world"));
    }
}
