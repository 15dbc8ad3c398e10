//! Rejects requests of foreign web pages, by their `Host` and `Origin` headers.
//!
//! Browsers on this machine can reach its loopback addresses. A web page must not use them, neither from its scripts
//! (`Origin`) nor through a host name that resolves to this machine (DNS rebinding, `Host`).

use std::net::IpAddr;

use http::{HeaderMap, header};

use super::{cors::is_allowed_origin, rejection::Rejection};

use crate::config::ServeConfig;

/// Checks `Host` and `Origin` of a request. `loopback`: the listener is on a loopback address.
pub(super) fn check(
    serve: &ServeConfig,
    loopback: bool,
    headers: &HeaderMap,
    authority: Option<&str>,
) -> Result<(), Rejection> {
    let header_text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let host = authority.map(str::to_owned).or_else(|| header_text(header::HOST)).unwrap_or_default();
    // With two `Host` headers, a proxy in front may have checked the other one.
    let duplicate_host = headers.get_all(header::HOST).iter().nth(1).is_some();
    if duplicate_host || loopback && !is_own_host(serve, &host) {
        return Err(Rejection::HostNotAllowed(host));
    }
    let Some(origin) = header_text(header::ORIGIN) else { return Ok(()) };
    let is_page = |scheme: &str| matches!(scheme, "http" | "https");
    let same_origin = origin
        .split_once("://")
        .is_some_and(|(scheme, authority)| is_page(scheme) && authority.eq_ignore_ascii_case(&host));
    // With two `Origin` headers, a proxy in front may have checked the other one.
    let duplicate_origin = headers.get_all(header::ORIGIN).iter().nth(1).is_some();
    if duplicate_origin {
        return Err(Rejection::OriginNotAllowed(origin));
    }
    if same_origin || is_allowed_origin(serve, &origin) { Ok(()) } else { Err(Rejection::OriginNotAllowed(origin)) }
}

/// Whether `host`, with or without a port, is a name of this machine.
fn is_own_host(serve: &ServeConfig, host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':').or((!rest.is_empty()).then_some(rest))),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    // A proxy in front may read a malformed host in another way.
    if port.is_some_and(|port| port.is_empty() || port.parse::<u16>().is_err()) {
        return false;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost"
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || serve.hosts.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(serve: &ServeConfig, loopback: bool, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("valid header value"));
        headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().expect("valid header value"))));
        check(serve, loopback, &headers, None).is_ok()
    }

    #[test]
    fn loopback_accepts_only_host_names_of_this_machine() {
        let serve = ServeConfig { hosts: vec!["models.local".into()], ..ServeConfig::default() };
        for host in
            ["localhost", "localhost:8484", "127.0.0.1:1", "[::1]:8484", "LOCALHOST.", "models.local:80", "127.8.8.8"]
        {
            assert!(is_allowed(&serve, true, host, None), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8484",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[::2]:1",
            "localhost:8484@evil.example",
            "localhost:evil",
            "localhost:",
            "[::1]evil.example",
            "localhost:1:2",
            "localhost..",
            "10.0.0.1",
        ] {
            assert!(!is_allowed(&serve, true, host, None), "{host}");
            assert!(is_allowed(&serve, false, host, None), "{host}: other addresses are protected by client keys");
        }
    }

    #[test]
    fn foreign_origins_are_rejected_unless_listed_in_cors() {
        let serve = ServeConfig { cors: vec!["https://chat.example.com".into()], ..ServeConfig::default() };
        let listed = ServeConfig { cors: vec!["null".into(), "chrome-extension://abc".into()], ..serve.clone() };
        for origin in ["null", "chrome-extension://abc"] {
            assert!(is_allowed(&listed, true, "localhost:1", Some(origin)), "{origin}");
        }
        for loopback in [true, false] {
            assert!(is_allowed(&serve, loopback, "localhost:1", Some("https://chat.example.com")));
            assert!(is_allowed(&serve, loopback, "localhost:1", Some("http://localhost:1")));
            for origin in [
                "null",
                "https://evil.example",
                "https://localhost.evil.example",
                "https://chat.example.com.evil.example",
                "chrome-extension://abc",
                "file://",
                "http://localhost@evil.example",
                "apps://x",
                "http://127.0.0.1.evil.example",
                "",
            ] {
                assert!(!is_allowed(&serve, loopback, "localhost:1", Some(origin)), "{origin}");
            }
            for origin in [
                "http://localhost:2",
                "https://127.0.0.1",
                "http://[::1]:3000",
                "http://tauri.localhost",
                "app://obsidian.md",
                "tauri://localhost",
                "vscode-webview://1a2b",
            ] {
                assert!(is_allowed(&serve, loopback, "localhost:1", Some(origin)), "{origin}");
            }
        }
    }
}
