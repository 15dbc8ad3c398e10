//! Finds the route of a path that a client has built from its base URL in another way.
//!
//! Clients append `/v1/chat/completions` to a base URL that ends in `/v1`, or `/chat/completions` to one that does not,
//! and join them with two slashes.

/// The routes under `/v1`.
const API_PATHS: [&str; 6] =
    ["/chat/completions", "/completions", "/embeddings", "/rerank", "/images/generations", "/models"];

/// The path to route instead of `path`; `None`: `path` itself.
pub(super) fn normalized(path: &str) -> Option<String> {
    let has_slashes = path.contains("//") || path.len() > 1 && path.ends_with('/');
    let is_plain = !has_slashes && path.starts_with("/v1/") && !path.starts_with("/v1/v1/");
    if is_plain {
        return None;
    }
    // The id of a model may contain slashes, but no empty segments.
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let without_version = segments.iter().position(|segment| *segment != "v1").unwrap_or(segments.len());
    let rest = format!("/{}", segments[without_version..].join("/"));
    let is_api = API_PATHS.iter().any(|known| {
        rest.strip_prefix(known).is_some_and(|after| after.is_empty() || *known == "/models" && after.starts_with('/'))
    });
    let normalized = if is_api { format!("/v1{rest}") } else { format!("/{}", segments.join("/")) };
    (normalized != path).then_some(normalized)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_and_without_version_and_with_doubled_slashes_have_one_route() {
        let chat = Some("/v1/chat/completions".to_owned());
        for path in [
            "/chat/completions",
            "//v1/chat/completions",
            "/v1//chat/completions",
            "/v1/v1/chat/completions",
            "/v1/chat/completions/",
        ] {
            assert_eq!(normalized(path), chat, "{path}");
        }
        assert_eq!(normalized("/models/a/b:c").as_deref(), Some("/v1/models/a/b:c"));
        assert_eq!(normalized("//health").as_deref(), Some("/health"));
        for path in ["/v1/chat/completions", "/v1/models/a/b", "/health", "/", "/nope", "/v1/nope"] {
            assert_eq!(normalized(path), None, "{path}");
        }
    }
}
