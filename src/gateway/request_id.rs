//! Makes the ids of requests, and accepts those that clients send.

use http::HeaderMap;

/// The longest id that is accepted from a client.
const MAX_LEN: usize = 128;

/// A new id: a UUID of version 7, which sorts by time, with the letters `a` to `p` for its hexadecimal digits.
///
/// Some clients take an error for a rate limit or an outage if its text contains 429, 500, 502, 503 or 529 anywhere, and
/// retry it without end. The digits of an id contain such a number now and then, letters never do.
pub(super) fn new() -> String {
    let letter = |digit: char| {
        let value = digit.to_digit(16).expect("a UUID has hexadecimal digits");
        char::from(b'a' + u8::try_from(value).expect("a digit is below 16"))
    };
    uuid::Uuid::now_v7().simple().to_string().chars().map(letter).collect()
}

/// The id in the `X-Request-Id` of a client, if it is one line of visible characters.
pub(super) fn of_client(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id")?.to_str().ok()?.trim();
    (!id.is_empty() && id.len() <= MAX_LEN).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ids_have_no_digits_and_sort_by_time() {
        let ids: Vec<String> = (0..100).map(|_| new()).collect();
        assert!(ids.iter().all(|id| id.len() == 32 && id.chars().all(|c| c.is_ascii_lowercase())), "{ids:?}");
        let mut sorted = ids.clone();
        sorted.sort();
        assert_eq!(sorted, ids);
    }

    #[test]
    fn id_of_a_client_is_one_line_of_limited_length() {
        let of = |value: &str| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static("x-request-id"),
                http::HeaderValue::from_bytes(value.as_bytes()).expect("valid header value"),
            )]);
            of_client(&headers)
        };
        assert_eq!(of(" trace-1 ").as_deref(), Some("trace-1"));
        assert_eq!((of(""), of("héllo"), of(&"x".repeat(129))), (None, None, None));
    }
}
