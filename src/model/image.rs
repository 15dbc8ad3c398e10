//! Images in messages.
//!
//! The media type is detected from the first bytes, because file names can be wrong. Images are not decoded.

use bytes::Bytes;

/// An image in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// Image file content.
    Data {
        /// Media type, such as `image/png`.
        media_type: &'static str,
        /// Complete file content.
        bytes: Bytes,
    },
    /// URL that the service fetches.
    Url(String),
}

/// Token estimate for an image of ordinary size; the real number depends on the model and the resolution.
pub(crate) const ESTIMATED_TOKENS: u64 = 800;

/// Detects the media type from the first bytes of a file: PNG, JPEG, WebP or GIF.
#[must_use]
pub fn detect_media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_type_is_detected_from_the_content() {
        for (bytes, want) in [
            (&b"\x89PNG\r\n\x1a\n...."[..], Some("image/png")),
            (b"\xff\xd8\xff\xe0....", Some("image/jpeg")),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"GIF89a..", Some("image/gif")),
            (b"GIF is a word", None),
            (b"RIFF\x10\0\0\0WAVEfmt ", None),
            (b"", None),
        ] {
            assert_eq!(detect_media_type(bytes), want, "{bytes:?}");
        }
    }
}
