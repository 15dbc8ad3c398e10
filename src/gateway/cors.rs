//! Allows web pages of the origins in the config to use the gateway (CORS).

use std::{sync::Arc, time::Duration};

use http::{HeaderName, Method, header};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use super::Gateway;
use crate::config::ServeConfig;

/// Request headers that a page may send to the gateway: those of clients, of mmchat and of OpenAI's SDK. None of them is
/// passed on to a service, see `prepare::resolve_call`.
const PAGE_HEADERS: [HeaderName; 14] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-mmchat-buffer"),
    HeaderName::from_static("x-mmchat-session"),
    HeaderName::from_static("x-stainless-arch"),
    HeaderName::from_static("x-stainless-lang"),
    HeaderName::from_static("x-stainless-os"),
    HeaderName::from_static("x-stainless-package-version"),
    HeaderName::from_static("x-stainless-retry-count"),
    HeaderName::from_static("x-stainless-runtime"),
    HeaderName::from_static("x-stainless-runtime-version"),
    HeaderName::from_static("x-stainless-timeout"),
];

pub(super) fn is_allowed_origin(serve: &ServeConfig, origin: &str) -> bool {
    serve.cors.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
}

/// Adds the CORS headers to responses to the origins of the current config, and answers preflight requests.
pub(super) fn layer(gateway: &Arc<Gateway>) -> CorsLayer {
    let gateway = Arc::downgrade(gateway);
    let allowed_origin = AllowOrigin::predicate(move |origin, _| {
        let serve = gateway.upgrade().map(|gateway| gateway.current());
        let origin = origin.to_str().ok();
        serve.zip(origin).is_some_and(|(current, origin)| is_allowed_origin(&current.config.serve, origin))
    });
    CorsLayer::new()
        .allow_origin(allowed_origin)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(PAGE_HEADERS)
        .expose_headers(Any)
        .max_age(Duration::from_secs(600))
        // An allowed public page may call a private address (Private Network Access).
        .allow_private_network(true)
}
