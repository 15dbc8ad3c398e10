//! Builds the CORS response headers for the origins that the config allows, and recognizes preflight requests.

use http::{HeaderMap, HeaderValue, Method, header};

use crate::config::ServeConfig;

pub(super) fn is_allowed_origin(serve: &ServeConfig, origin: &str) -> bool {
    serve.cors.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
}

/// CORS response headers for an allowed origin; empty for any other request.
pub(super) fn cors_headers(serve: &ServeConfig, headers: &HeaderMap) -> Vec<(http::HeaderName, HeaderValue)> {
    let origin =
        headers.get(header::ORIGIN).filter(|origin| origin.to_str().is_ok_and(|text| is_allowed_origin(serve, text)));
    let Some(origin) = origin else { return Vec::new() };
    vec![
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (header::VARY, HeaderValue::from_static("origin")),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*")),
    ]
}

/// Whether a request is a CORS preflight request.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Response headers of a preflight request of an allowed origin.
pub(super) fn preflight_headers() -> [(http::HeaderName, HeaderValue); 4] {
    [
        (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST")),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(
                "authorization, content-type, api-key, x-api-key, x-mmchat-buffer, x-mmchat-session, x-stainless-arch, x-stainless-lang, x-stainless-os, x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout",
            ),
        ),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
        // Private Network Access: lets an allowed public page call a private address.
        (http::HeaderName::from_static("access-control-allow-private-network"), HeaderValue::from_static("true")),
    ]
}
