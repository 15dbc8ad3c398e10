//! Removes what a client has sent from the error of a service.
//!
//! Services quote refused values and names. A client could choose a value such as "invalid api key": the error would be
//! classed by it, and a key or a model would become unavailable for all clients.

use serde::Deserializer;

use crate::protocol::framing::value_reader::{ValueReader, read_with};

/// Longer texts are compared in pieces of this many characters, since services quote only a part of them.
const PIECE_CHARS: usize = 100;
/// Maximum number of texts that are compared.
const MAX_TEXTS: usize = 4000;

/// `message` without the texts and names of `request` that are `harmful` in it.
pub(super) fn without_echo(message: &str, request: &[u8], harmful: impl Fn(&str) -> bool) -> String {
    let mut texts = Texts { message, echoed: Vec::new(), count: 0 };
    // What was read before an error in the request is compared, too.
    let _ = read_with(&mut texts, &mut serde_json::Deserializer::from_slice(request));
    let mut echoed: Vec<String> = texts.echoed.into_iter().filter(|text| harmful(text)).collect();
    echoed.sort_by_key(|text| std::cmp::Reverse(text.len()));
    echoed.iter().fold(message.to_owned(), |message, text| message.replace(text, ""))
}

/// Collects the texts of a request that `message` contains.
struct Texts<'m> {
    message: &'m str,
    echoed: Vec<String>,
    count: usize,
}

impl Texts<'_> {
    fn add(&mut self, text: &str) {
        let char_end = |text: &str, count| text.char_indices().nth(count).map_or(text.len(), |(end, _)| end);
        let mut rest = text;
        while !rest.is_empty() && self.count < MAX_TEXTS {
            let piece = &rest[..char_end(rest, PIECE_CHARS)];
            self.count += 1;
            if self.message.contains(piece) {
                self.echoed.push(piece.to_owned());
            }
            // Pieces overlap, so that one of them contains every wording.
            rest = if piece.len() == rest.len() { "" } else { &rest[char_end(rest, PIECE_CHARS / 2)..] };
        }
    }
}

impl ValueReader for Texts<'_> {
    fn text(&mut self, text: &str) {
        self.add(text);
    }

    fn item<'de, D: Deserializer<'de>>(&mut self, item: D) -> Result<(), D::Error> {
        read_with(self, item)
    }

    fn field<'de, D: Deserializer<'de>>(&mut self, name: &str, value: D) -> Result<(), D::Error> {
        self.add(name);
        read_with(self, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_names_of_the_request_are_removed() {
        let long = "an invalid api key ".repeat(30);
        let request = serde_json::json!({
            "model": "m", "reasoning_effort": "invalid api key", "insufficient_quota": 1,
            "messages": [{"role": "user", "content": long}],
        });
        let request = request.to_string();
        let remove = |message: &str| without_echo(message, request.as_bytes(), |text| text.len() > 10);
        assert_eq!(remove("Invalid value: 'invalid api key'."), "Invalid value: ''.");
        assert_eq!(remove("Unrecognized argument: insufficient_quota"), "Unrecognized argument: ");
        assert!(!remove(&format!("flagged: {}", &long[..400])).contains("invalid"));
        assert_eq!(remove("the user has no key for m"), "the user has no key for m");
        assert_eq!(without_echo("m", b"not JSON", |_| true), "m");
    }
}
