//! Finds keys in texts that quote a service, a command or a config: as they are, in another encoding, or by their shape.

use std::{borrow::Cow, ops::Range};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// What is shown in place of a key.
pub const REDACTED: &str = "[redacted]";

/// The beginnings of keys of known services.
const KEY_PREFIXES: [&str; 18] = [
    "sk-",
    "sk_",
    "pk-",
    "ak-",
    "rk_",
    "gsk_",
    "xai-",
    "pplx-",
    "hf_",
    "r8_",
    "nvapi-",
    "AIza",
    "ghp_",
    "github_pat_",
    "glpat-",
    "csk-",
    "tgp_",
    "eyJ",
];
/// The shortest key with such a beginning.
const MIN_PREFIXED_LEN: usize = 12;
/// The shortest key that is recognized by its mixture of characters.
const MIN_MIXED_LEN: usize = 20;
/// The shortest key of hexadecimal digits.
const MIN_HEX_LEN: usize = 32;
/// The shortest part of a key that is recognized at the end of a truncated text.
const MIN_TRUNCATED_LEN: usize = 3;
/// How often a text may be percent-encoded.
const MAX_ENCODINGS: usize = 3;

/// `text` without `key`: in any case, with blanks inside, escaped, in base64 or hexadecimal, and at the end of a truncated
/// text also its beginning.
pub(super) fn mask_key(text: &str, key: &str) -> String {
    let mut ranges = encoded_words(text, key);
    let (mut text_bytes, mut key_bytes) = (visible_bytes(text), visible_bytes(key));
    for _ in 0..MAX_ENCODINGS {
        // A key of blanks only.
        if key_bytes.is_empty() {
            break;
        }
        ranges.extend(occurrences(&text_bytes, &key_bytes));
        let (decoded_text, decoded_key) = (unescaped(&text_bytes), unescaped(&key_bytes));
        if decoded_text.len() == text_bytes.len() {
            break;
        }
        (text_bytes, key_bytes) = (decoded_text, decoded_key);
    }
    replace(text, ranges)
}

/// A byte of a decoded text, and where it comes from.
#[derive(Clone, Copy)]
struct Byte {
    value: u8,
    start: usize,
    end: usize,
}

/// The bytes of `text` in lower case, without blanks.
fn visible_bytes(text: &str) -> Vec<Byte> {
    let is_visible =
        |c: char| !c.is_whitespace() && !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}');
    let visible = text.char_indices().filter(|(_, c)| is_visible(*c));
    let bytes = visible.flat_map(|(start, c)| {
        let end = start + c.len_utf8();
        let mut utf8 = [0; 4];
        let bytes = half_width(c).encode_utf8(&mut utf8).as_bytes().to_vec();
        bytes.into_iter().map(move |value| Byte { value: value.to_ascii_lowercase(), start, end })
    });
    bytes.collect()
}

/// The ASCII character of one in full width.
fn half_width(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        c => c,
    }
}

/// The bytes with escapes of URLs (`%2d`), JSON (`\u002d`) and HTML (`&#45;`, `&#x2d;`) decoded once.
fn unescaped(bytes: &[Byte]) -> Vec<Byte> {
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let (value, length) = escape_at(&bytes[at..]).unwrap_or((byte.value, 1));
        let end = bytes[at + length - 1].end;
        at += length;
        if !value.is_ascii_whitespace() {
            out.push(Byte { value: value.to_ascii_lowercase(), start: byte.start, end });
        }
    }
    out
}

/// The value and the length of the escape at the start of `bytes`.
fn escape_at(bytes: &[Byte]) -> Option<(u8, usize)> {
    let head: Vec<u8> = bytes.iter().take(8).map(|byte| byte.value).collect();
    let number = |digits: &[u8], radix| u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok();
    let (value, length) = match head.as_slice() {
        [b'%', high, low, ..] => (number(&[*high, *low], 16)?, 3),
        [b'\\', b'/', ..] => (u32::from(b'/'), 2),
        [b'\\', b'u', a, b, c, d, ..] => (number(&[*a, *b, *c, *d], 16)?, 6),
        [b'&', b'#', rest @ ..] => {
            let length = rest.iter().position(|byte| *byte == b';')?;
            let digits = &rest[..length];
            let value = digits.strip_prefix(b"x").map_or_else(|| number(digits, 10), |digits| number(digits, 16))?;
            (value, length + 3)
        }
        _ => return None,
    };
    u8::try_from(value).ok().map(|value| (value, length))
}

/// Where `key` is in `text`, and where a truncated text ends in its beginning.
fn occurrences(text: &[Byte], key: &[Byte]) -> Vec<Range<usize>> {
    let values = |bytes: &[Byte]| bytes.iter().map(|byte| byte.value).collect::<Vec<_>>();
    let (text_values, key_values) = (values(text), values(key));
    let range = |found: Range<usize>| text[found.start].start..text[found.end - 1].end;
    let mut ranges: Vec<_> = memchr::memmem::find_iter(&text_values, &key_values)
        .map(|start| range(start..start + key_values.len()))
        .collect();
    if let Some(truncated) = text_values.strip_suffix("…".as_bytes()) {
        let longest =
            (MIN_TRUNCATED_LEN..key_values.len()).rev().find(|length| truncated.ends_with(&key_values[..*length]));
        ranges.extend(longest.map(|length| range(truncated.len() - length..truncated.len())));
    }
    ranges
}

/// The words of `text` in base64 or hexadecimal that contain `key`.
fn encoded_words(text: &str, key: &str) -> Vec<Range<usize>> {
    let key = key.to_ascii_lowercase().into_bytes();
    let contains = |decoded: Option<Vec<u8>>| {
        decoded.is_some_and(|decoded| memchr::memmem::find(&decoded.to_ascii_lowercase(), &key).is_some())
    };
    let is_word_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_');
    let is_encoded = |word: &str| {
        // Characters before the code, such as a slash, move its groups.
        (0..4.min(word.len()))
            .any(|start| contains(decode_base64(&word[start..])) || contains(decode_hex(&word[start..])))
    };
    words(text, is_word_char).filter(|range| range.len() > key.len() && is_encoded(&text[range.clone()])).collect()
}

fn decode_base64(word: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let word = word.replace('-', "+").replace('_', "/");
    // One character alone is no byte.
    let length = word.len() - usize::from(word.len() % 4 == 1);
    LENIENT.decode(&word[..length]).ok()
}

fn decode_hex(word: &str) -> Option<Vec<u8>> {
    let pairs = word.as_bytes().chunks_exact(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// `text` without words that look like keys, for names in which a key was pasted.
#[must_use]
pub fn mask_key_shapes(text: &str) -> Cow<'_, str> {
    let is_word_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let ranges: Vec<_> = words(text, is_word_char).filter(|range| looks_like_key(&text[range.clone()])).collect();
    if ranges.is_empty() { text.into() } else { replace(text, ranges).into() }
}

/// Whether `word` has the shape of a key: a known beginning, or a random mixture of characters.
#[must_use]
pub fn looks_like_key(word: &str) -> bool {
    let word = word.trim_matches('.');
    let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
    let has_prefix = KEY_PREFIXES.iter().any(|prefix| word.starts_with(prefix));
    if !has_digit {
        return false;
    }
    let is_hex = word.len() >= MIN_HEX_LEN && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    (has_prefix && word.len() >= MIN_PREFIXED_LEN) || is_hex || is_mixture(word)
}

/// Whether lower case, upper case and digits alternate more often than in a name.
fn is_mixture(word: &str) -> bool {
    let kind = |byte: u8| match byte {
        b'a'..=b'z' => Some(0),
        b'A'..=b'Z' => Some(1),
        b'0'..=b'9' => Some(2),
        _ => None,
    };
    let kinds: Vec<u8> = word.bytes().filter_map(kind).collect();
    let changes = kinds.windows(2).filter(|pair| pair[0] != pair[1]).count();
    kinds.len() >= MIN_MIXED_LEN && (0..3).all(|kind| kinds.contains(&kind)) && changes * 5 >= kinds.len() * 2
}

/// The positions of the longest runs of such characters.
fn words(text: &str, is_word_char: impl Fn(char) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(&is_word_char)?;
        let end = text[start..].find(|c| !is_word_char(c)).map_or(text.len(), |length| start + length);
        at = end;
        Some(start..end)
    })
}

/// `text` with the ranges replaced.
fn replace(text: &str, mut ranges: Vec<Range<usize>>) -> String {
    ranges.sort_by_key(|range| range.start);
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for range in ranges {
        if range.start >= at {
            out.push_str(&text[at..range.start]);
            out.push_str(REDACTED);
        }
        at = at.max(range.end);
    }
    out + &text[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-Very+Secret/key-42";

    #[test]
    fn key_is_masked_in_every_encoding() {
        use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
        let hex = KEY.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        for form in [
            KEY.to_owned(),
            KEY.to_uppercase(),
            "sk-Very +Sec\u{200b}ret/\n key-42".to_owned(),
            "sk%2DVery%2BSecret%2fkey-42".to_owned(),
            "sk%252DVery%252BSecret/key-42".to_owned(),
            "sk\\u002dVery+Secret/key-42".to_owned(),
            "sk&#45;Very&#x2B;Secret/key-42".to_owned(),
            "sk-Very+Sec\u{ad}ret\\/key-42".to_owned(),
            "ｓｋ-Ｖery+Secret/key-42".to_owned(),
            STANDARD.encode(KEY),
            URL_SAFE.encode(format!("Bearer {KEY}")),
            STANDARD_NO_PAD.encode(format!("user:{KEY}")),
            format!("/{}", STANDARD.encode(KEY.to_lowercase())),
            hex.to_uppercase(),
        ] {
            let masked = mask_key(&format!("no: {form}, sorry"), KEY);
            assert!(masked.starts_with("no: ") && masked.contains(REDACTED) && masked.ends_with("sorry"), "{masked}");
            let left = masked.replace(REDACTED, "");
            assert!(left.len() < "no: /==, sorry".len() + 1, "{form}: {left}");
        }
    }

    #[test]
    fn other_text_is_unchanged() {
        for text in
            ["", "sk-", "a percent sign: 100%", "%zz \\u00 &#;", "secret key 42", "日本語 text…", "c2stVmVyeQ=="]
        {
            assert_eq!(mask_key(text, KEY), text);
        }
        assert_eq!(mask_key("refused: sk-very+sec…", KEY), "refused: [redacted]…");
        for blank in ["\u{200b}\u{200b}\u{200b}", "%20%20%20%20"] {
            assert_eq!(mask_key("a text…", blank), "a text…");
        }
    }

    #[test]
    fn keys_are_recognized_by_their_shape() {
        for key in [
            "sk-pastedvar-12345678",
            "sk-proj-abc123DEF456",
            "gsk_1234567890abc",
            "AIzaSyA1234567890abcdef",
            "d41d8cd98f00b204e9800998ecf8427e",
            "aB3dE5fG7hI9jK1lM3nO5p",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x1",
        ] {
            assert!(looks_like_key(key), "{key}");
            assert_eq!(mask_key_shapes(&format!("/a/{key}: no")), "/a/[redacted]: no");
        }
        for name in [
            "AZURE_OPENAI_API_KEY_2",
            "OPENAI_API_KEY",
            "MyCompany_OpenAI_Key_2024",
            "/home/user/.config/mmchat/keys/team-2024.key",
            "550e8400-e29b-41d4-a716-446655440000",
            "sk-team",
            "deepseek-v3.2-exp-250929",
        ] {
            assert_eq!(mask_key_shapes(name), name);
        }
    }
}
