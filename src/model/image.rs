//! Pictures as part of a message.
//!
//! Owns telling a picture by its first bytes, since names of files lie. Refuses to decode it: whether its pixels make
//! sense is for the model to say.

use bytes::Bytes;

/// A picture to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// Its bytes, and what they are.
    Data {
        /// Such as `image/png`.
        media_type: &'static str,
        /// The whole file.
        bytes: Bytes,
    },
    /// Where the service itself fetches it.
    Url(String),
}

/// What most services charge for a picture of ordinary size, in tokens; it depends on the model and the pixels.
pub(super) const TOKENS: u64 = 800;

/// The media type of the picture that `bytes` begin: PNG, JPEG, WebP or GIF.
#[must_use]
pub fn media_type(bytes: &[u8]) -> Option<&'static str> {
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
    fn pictures_are_told_by_their_content() {
        for (bytes, want) in [
            (&b"\x89PNG\r\n\x1a\n...."[..], Some("image/png")),
            (b"\xff\xd8\xff\xe0....", Some("image/jpeg")),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"GIF89a..", Some("image/gif")),
            (b"GIF is a word", None),
            (b"RIFF\x10\0\0\0WAVEfmt ", None),
            (b"", None),
        ] {
            assert_eq!(media_type(bytes), want, "{bytes:?}");
        }
    }
}
