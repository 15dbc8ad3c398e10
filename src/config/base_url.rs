//! Parses base URLs of endpoints.

use url::Url;

/// Parses a base URL. The error continues a sentence that starts with its name: `base_url has no host`.
pub(crate) fn parse_base_url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Err("does not start with http:// or https://".to_owned())
        }
        Ok(url) if url.host_str().is_none_or(str::is_empty) => Err("has no host".to_owned()),
        Ok(mut url) => {
            // The URL of the chat endpoint is often pasted instead of the base URL.
            if let Some(base) = url.path().trim_end_matches('/').strip_suffix("/chat/completions") {
                let base = base.to_owned();
                url.set_path(&base);
            }
            Ok(url)
        }
        Err(url::ParseError::RelativeUrlWithoutBase) => Err("does not start with http:// or https://".to_owned()),
        Err(error) => Err(format!("is not a valid URL: {error}")),
    }
}
