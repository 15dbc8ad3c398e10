//! What kind of server an endpoint is, by its answers and headers.
//!
//! Owns the marks, the surest first. A gateway may pass its upstream's marks on, and some serve a page for every path they do
//! not know: only JSON of the right shape counts, and `owned_by` of a list counts last.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;

use super::{at_root, json};
use crate::{
    engine::{Engine, Fetched},
    model::endpoint::Endpoint,
    protocol::ModelInfo,
};

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One-API.
    OneApi,
    /// new-api, which came of it.
    NewApi,
    /// The LiteLLM proxy.
    LiteLlm,
    /// Ollama.
    Ollama,
    /// vLLM.
    Vllm,
    /// Xinference.
    Xinference,
    /// llama.cpp's server.
    LlamaCpp,
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Self::OneApi => "One-API",
            Self::NewApi => "new-api",
            Self::LiteLlm => "LiteLLM",
            Self::Ollama => "Ollama",
            Self::Vllm => "vLLM",
            Self::Xinference => "Xinference",
            Self::LlamaCpp => "llama.cpp server",
        }
    }
}

/// A server that was recognised.
#[derive(Clone, Debug, PartialEq)]
pub struct Recognised {
    /// What it is.
    pub kind: Kind,
    /// Its version, if it says so.
    pub version: Option<String>,
    /// What gave it away.
    pub by: &'static str,
    /// What its status page says, of a One-API or new-api.
    pub status: Option<serde_json::Value>,
}

impl std::fmt::Display for Recognised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = self.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        write!(f, "{}{version} (by {})", self.kind.title(), self.by)
    }
}

/// The paths that are looked at; none of them wants a key.
const PATHS: [&str; 6] =
    ["/api/status", "/health/liveliness", "/api/version", "/v1/cluster/auth", "/version", "/health"];

/// What was at each of the paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Vec<(&'static str, Fetched)>);

/// Looks at all of them at once.
pub(super) async fn look(engine: &Arc<Engine>, endpoint: &Arc<Endpoint>, limit: Duration) -> Seen {
    let looks = PATHS
        .iter()
        .map(async |&path| Some((path, engine.fetch(endpoint, &at_root(endpoint, path), false, limit).await.ok()?)));
    Seen(join_all(looks).await.into_iter().flatten().collect())
}

impl Seen {
    /// Whether anything answered at all.
    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// The fastest of the answers.
    pub(super) fn fastest(&self) -> Option<Duration> {
        self.0.iter().map(|(_, fetched)| fetched.took).min()
    }

    /// The server's own clock.
    pub(super) fn date(&self) -> Option<Timestamp> {
        let text = self.0.iter().find_map(|(_, fetched)| fetched.headers.get("date")?.to_str().ok())?;
        jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
    }

    fn json(&self, path: &str) -> Option<serde_json::Value> {
        let (_, fetched) = self.0.iter().find(|(known, fetched)| *known == path && fetched.status == 200)?;
        json(fetched)
    }

    fn header(&self, name: &str) -> Option<String> {
        self.0.iter().find_map(|(_, fetched)| Some(fetched.headers.get(name)?.to_str().ok()?.to_owned()))
    }
}

/// What the server is; `None`: nothing that is known.
pub(super) fn recognise(seen: &Seen, listed: &[ModelInfo]) -> Option<Recognised> {
    let found = |kind, by, version| Some(Recognised { kind, version, by, status: None });
    let version = |path: &str| Some(seen.json(path)?.get("version")?.as_str()?.to_owned());
    one_api(seen)
        .or_else(|| {
            let alive = seen.json("/health/liveliness")?;
            (alive == "I'm alive!").then_some(())?;
            found(Kind::LiteLlm, "/health/liveliness", seen.header("x-litellm-version"))
        })
        .or_else(|| {
            seen.json("/v1/cluster/auth")?.get("auth")?.as_bool()?;
            found(Kind::Xinference, "/v1/cluster/auth", None)
        })
        .or_else(|| {
            let server = seen.header("server")?;
            server.starts_with("llama.cpp").then_some(())?;
            found(Kind::LlamaCpp, "its Server header", None)
        })
        .or_else(|| {
            let version = version("/api/version")?;
            found(Kind::Ollama, "/api/version", Some(version))
        })
        .or_else(|| {
            let version = version("/version")?;
            listed.iter().any(|model| model.owner.as_deref() == Some("vllm")).then_some(())?;
            found(Kind::Vllm, "/version and its list", Some(version))
        })
        .or_else(|| {
            // Behind a proxy that hides the rest.
            let owner = listed.first()?.owner.as_deref()?;
            let kind = [("vllm", Kind::Vllm), ("llamacpp", Kind::LlamaCpp), ("xinference", Kind::Xinference)];
            let (_, kind) = kind.into_iter().find(|(known, _)| *known == owner)?;
            found(kind, "owned_by of its list", None)
        })
}

/// One-API and what came of it share a header and a status page; these fields are only the one's or the other's.
fn one_api(seen: &Seen) -> Option<Recognised> {
    let status = seen.json("/api/status").filter(|status| status.get("success").is_some());
    let data = status.as_ref().and_then(|status| status.get("data")).cloned();
    let has = |field: &str| data.as_ref().is_some_and(|data| data.get(field).is_some());
    let header = seen.header("x-new-api-version");
    let ours = seen.header("x-oneapi-request-id").is_some() || has("quota_per_unit");
    let kind = if header.is_some() || has("self_use_mode_enabled") || has("enable_data_export") {
        Kind::NewApi
    } else if ours {
        Kind::OneApi
    } else {
        return None;
    };
    let version = header.or_else(|| Some(data.as_ref()?.get("version")?.as_str()?.to_owned()));
    let by = if data.is_some() { "/api/status" } else { "its headers" };
    // A build of one's own has no version.
    Some(Recognised { kind, version: version.filter(|version| version != "v0.0.0"), by, status: data })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn seen(answers: &[(&'static str, &str)], headers: &[(&'static str, &'static str)]) -> Seen {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect();
        let fetched = |body: &str| Fetched {
            status: 200,
            headers: headers.clone(),
            body: body.to_owned(),
            took: Duration::from_millis(1),
        };
        Seen(answers.iter().map(|(path, body)| (*path, fetched(body))).collect())
    }

    fn owned_by(owner: &str) -> Vec<ModelInfo> {
        vec![ModelInfo { id: "m".into(), context: None, owner: Some(owner.into()) }]
    }

    #[test]
    fn each_is_known_by_its_own_mark() {
        let page = "<!doctype html><title>One API</title>";
        let request = ("x-oneapi-request-id", "2026");
        for (seen, listed, want) in [
            (
                seen(
                    &[
                        (
                            "/api/status",
                            r#"{"success":true,"data":{"quota_per_unit":500000,"version":"v0.6.10","lark_client_id":""}}"#,
                        ),
                        ("/version", page),
                    ],
                    &[request],
                ),
                vec![],
                (Kind::OneApi, Some("v0.6.10")),
            ),
            (
                seen(
                    &[(
                        "/api/status",
                        r#"{"success":true,"data":{"quota_per_unit":500000,"version":"v0.0.0","self_use_mode_enabled":false}}"#,
                    )],
                    &[request],
                ),
                vec![],
                (Kind::NewApi, None),
            ),
            (
                seen(&[("/api/status", page)], &[request, ("x-new-api-version", "v1.0.0")]),
                vec![],
                (Kind::NewApi, Some("v1.0.0")),
            ),
            (seen(&[("/health/liveliness", "\"I'm alive!\"")], &[]), owned_by("openai"), (Kind::LiteLlm, None)),
            (
                seen(&[("/api/version", r#"{"version":"0.9.1"}"#)], &[]),
                owned_by("library"),
                (Kind::Ollama, Some("0.9.1")),
            ),
            (
                seen(&[("/version", r#"{"version":"0.8.0"}"#)], &[("server", "uvicorn")]),
                owned_by("vllm"),
                (Kind::Vllm, Some("0.8.0")),
            ),
            (seen(&[("/v1/cluster/auth", r#"{"auth":false}"#)], &[]), owned_by("xinference"), (Kind::Xinference, None)),
            (
                seen(&[("/health", r#"{"status":"ok"}"#)], &[("server", "llama.cpp")]),
                owned_by("llamacpp"),
                (Kind::LlamaCpp, None),
            ),
            (Seen::default(), owned_by("llamacpp"), (Kind::LlamaCpp, None)),
        ] {
            let found = recognise(&seen, &listed).expect("known");
            assert_eq!((found.kind, found.version.as_deref()), want, "{found}");
        }
    }

    #[test]
    fn a_page_for_every_path_is_no_mark() {
        let page = "<html>hello</html>";
        let everywhere: Vec<_> = PATHS.iter().map(|&path| (path, page)).collect();
        assert_eq!(recognise(&seen(&everywhere, &[]), &owned_by("openai")), None);
        assert_eq!(recognise(&seen(&[("/version", r#"{"version":"1"}"#)], &[]), &owned_by("me")), None);
    }
}
