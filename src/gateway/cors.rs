//! Allows web pages of the origins in the config to use the gateway (CORS).

use std::{sync::Arc, time::Duration};

use http::Method;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use super::Gateway;
use crate::{config::ServeConfig, model::endpoint::is_loopback};

/// Schemes of desktop apps and editors, which no web page can have. Browser extensions are not among them: any extension
/// could then use the models.
const APP_SCHEMES: [&str; 3] = ["app", "tauri", "vscode-webview"];

/// Whether pages of this origin may use the gateway: programs on this machine, and the origins in the config.
pub(super) fn is_allowed_origin(serve: &ServeConfig, origin: &str) -> bool {
    is_local(origin) || serve.cors.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
}

/// Whether the origin is an app, or a page of a server on this machine.
fn is_local(origin: &str) -> bool {
    let Some((scheme, _)) = origin.split_once("://") else { return false };
    if APP_SCHEMES.iter().any(|app| scheme.eq_ignore_ascii_case(app)) {
        return true;
    }
    let url = url::Url::parse(origin).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    // A web page whose name resolves to this machine has a name of its own.
    url.is_some_and(|url| is_loopback(&url) && url.username().is_empty() && url.path() == "/")
}

/// Adds the CORS headers to responses to the origins of the current config, and answers preflight requests.
pub(super) fn layer(gateway: &Arc<Gateway>) -> CorsLayer {
    let gateway = Arc::downgrade(gateway);
    let allowed_origin = AllowOrigin::predicate(move |origin, _| {
        let serve = gateway.upgrade().map(|gateway| gateway.current());
        let origin = origin.to_str().ok();
        serve.zip(origin).is_some_and(|(current, origin)| is_allowed_origin(&current.config.serve, origin))
    });
    // The origin is trusted, so it may send any header; what reaches a service is decided in `prepare`.
    CorsLayer::new()
        .allow_origin(allowed_origin)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(Any)
        .max_age(Duration::from_secs(600))
        // An allowed public page may call a private address (Private Network Access).
        .allow_private_network(true)
}
