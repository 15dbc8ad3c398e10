//! Who is let in at all, before anything is read of what is asked.
//!
//! Owns the guard against web pages: a browser on this machine reaches loopback as well as its owner does, so that a page must
//! not, neither by its own script (`Origin`) nor by a name it has pointed here (`Host`). Refuses to know keys.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Method, header};

use super::error::{Refused, Why};
use crate::config::Serve;

/// Whether a request with these headers is let in. `loopback`: only this machine can reach the address it came to.
pub(super) fn check(
    serve: &Serve,
    loopback: bool,
    headers: &HeaderMap,
    authority: Option<&str>,
) -> Result<(), Refused> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let host = authority.map(str::to_owned).or_else(|| text(header::HOST)).unwrap_or_default();
    // Of two, whoever is in front may have read the other one.
    let several = headers.get_all(header::HOST).iter().nth(1).is_some();
    if several || loopback && !is_ours(serve, &host) {
        return Err(Refused::new(Why::Host(host)));
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let same = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(&host));
    if same || allowed(serve, &origin) { Ok(()) } else { Err(Refused::new(Why::Origin(origin))) }
}

/// Whether `host`, with or without a port, is a name of this machine.
fn is_ours(serve: &Serve, host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').filter(|(name, _)| !name.contains(':')).map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || serve.hosts.contains(&name)
}

fn allowed(serve: &Serve, origin: &str) -> bool {
    serve.cors.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
}

/// What a browser wants to read before a page may see a reply; nothing unless the page is allowed to.
pub(super) fn cors(serve: &Serve, headers: &HeaderMap) -> Vec<(http::HeaderName, HeaderValue)> {
    let origin = headers.get(header::ORIGIN).filter(|origin| origin.to_str().is_ok_and(|text| allowed(serve, text)));
    let Some(origin) = origin else { return Vec::new() };
    vec![
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (header::VARY, HeaderValue::from_static("origin")),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*")),
    ]
}

/// Whether it is the question of a browser whether a page may ask.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// What a page that is allowed may send.
pub(super) fn preflight() -> [(http::HeaderName, HeaderValue); 4] {
    [
        (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST")),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(
                "authorization, content-type, api-key, x-api-key, x-mmchat-buffer, x-mmchat-session, x-stainless-arch, x-stainless-lang, x-stainless-os, x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout",
            ),
        ),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
        // A page of the wide world that was allowed may come here, although this is a place of its own.
        (http::HeaderName::from_static("access-control-allow-private-network"), HeaderValue::from_static("true")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lets_in(serve: &Serve, loopback: bool, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("a value"));
        headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().expect("a value"))));
        check(serve, loopback, &headers, None).is_ok()
    }

    #[test]
    fn only_names_of_this_machine_lead_to_loopback() {
        let serve = Serve { hosts: vec!["models.local".into()], ..Serve::default() };
        for host in
            ["localhost", "localhost:8484", "127.0.0.1:1", "[::1]:8484", "LOCALHOST.", "models.local:80", "127.8.8.8"]
        {
            assert!(lets_in(&serve, true, host, None), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8484",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[::2]:1",
            "10.0.0.1",
        ] {
            assert!(!lets_in(&serve, true, host, None), "{host}");
            assert!(lets_in(&serve, false, host, None), "{host}: from elsewhere it is the keys that count");
        }
    }

    #[test]
    fn web_pages_stay_out_unless_they_are_named() {
        let serve = Serve { cors: vec!["https://chat.example.com".into()], ..Serve::default() };
        for loopback in [true, false] {
            assert!(lets_in(&serve, loopback, "localhost:1", Some("https://chat.example.com")));
            assert!(lets_in(&serve, loopback, "localhost:1", Some("http://localhost:1")));
            for origin in
                ["null", "https://evil.example", "http://localhost:2", "https://chat.example.com.evil.example", ""]
            {
                assert!(!lets_in(&serve, loopback, "localhost:1", Some(origin)), "{origin}");
            }
        }
    }
}
