//! Recognizes the server software of an endpoint by its responses and headers.
//!
//! The most reliable evidence is checked first. A gateway may forward headers and fields of its upstream, and some
//! servers return an HTML page for unknown paths. So only JSON of the expected form counts, and `owned_by` of the model
//! list is checked last.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;

use super::{parse_json, root_url};
use crate::{
    engine::{Engine, FetchResponse},
    model::endpoint::Endpoint,
    protocol::ModelInfo,
};

/// Server software.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerSoftware {
    /// One-API.
    OneApi,
    /// new-api, a fork of One-API.
    NewApi,
    /// The LiteLLM proxy.
    LiteLlm,
    /// Ollama.
    Ollama,
    /// vLLM.
    Vllm,
    /// Xinference.
    Xinference,
    /// llama.cpp server.
    LlamaCpp,
}

impl ServerSoftware {
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

/// A recognized server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RecognizedServer {
    /// Server software.
    pub software: ServerSoftware,
    /// Version, if reported.
    pub version: Option<String>,
    /// Evidence: the path or header by which it was recognized.
    pub evidence: &'static str,
    /// Status data of a One-API or new-api.
    pub status: Option<serde_json::Value>,
}

impl std::fmt::Display for RecognizedServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = self.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        write!(f, "{}{version} (by {})", self.software.title(), self.evidence)
    }
}

/// Probed paths; none of them needs a key.
const PATHS: [&str; 6] =
    ["/api/status", "/health/liveliness", "/api/version", "/v1/cluster/auth", "/version", "/health"];

/// Responses to the probes, by path.
#[derive(Clone, Debug, Default)]
pub(super) struct ProbeResponses(Vec<(&'static str, FetchResponse)>);

/// Probes all paths concurrently.
pub(super) async fn probe(engine: &Arc<Engine>, endpoint: &Arc<Endpoint>, timeout: Duration) -> ProbeResponses {
    let probes = PATHS
        .iter()
        .map(async |&path| Some((path, engine.fetch(endpoint, &root_url(endpoint, path), false, timeout).await.ok()?)));
    ProbeResponses(join_all(probes).await.into_iter().flatten().collect())
}

impl ProbeResponses {
    /// Whether any probe got a response.
    pub(super) fn has_responses(&self) -> bool {
        !self.0.is_empty()
    }

    /// Response time of the fastest probe.
    pub(super) fn fastest_response(&self) -> Option<Duration> {
        self.0.iter().map(|(_, response)| response.took).min()
    }

    /// Time of the server's clock.
    pub(super) fn server_time(&self) -> Option<Timestamp> {
        let text = self.0.iter().find_map(|(_, response)| response.headers.get("date")?.to_str().ok())?;
        jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
    }

    fn json(&self, path: &str) -> Option<serde_json::Value> {
        let (_, response) = self.0.iter().find(|(known, response)| *known == path && response.status == 200)?;
        parse_json(response)
    }

    fn header(&self, name: &str) -> Option<String> {
        self.0.iter().find_map(|(_, response)| Some(response.headers.get(name)?.to_str().ok()?.to_owned()))
    }
}

/// Recognizes the server; `None`: unknown.
pub(super) fn recognize(probes: &ProbeResponses, models: &[ModelInfo]) -> Option<RecognizedServer> {
    let recognized =
        |kind, evidence, version| Some(RecognizedServer { software: kind, version, evidence, status: None });
    let version = |path: &str| Some(probes.json(path)?.get("version")?.as_str()?.to_owned());
    recognize_one_api(probes)
        .or_else(|| {
            let body = probes.json("/health/liveliness")?;
            (body == "I'm alive!").then_some(())?;
            recognized(ServerSoftware::LiteLlm, "/health/liveliness", probes.header("x-litellm-version"))
        })
        .or_else(|| {
            probes.json("/v1/cluster/auth")?.get("auth")?.as_bool()?;
            recognized(ServerSoftware::Xinference, "/v1/cluster/auth", None)
        })
        .or_else(|| {
            let server = probes.header("server")?;
            server.starts_with("llama.cpp").then_some(())?;
            recognized(ServerSoftware::LlamaCpp, "Server header", None)
        })
        .or_else(|| {
            let version = version("/api/version")?;
            recognized(ServerSoftware::Ollama, "/api/version", Some(version))
        })
        .or_else(|| {
            let version = version("/version")?;
            models.iter().any(|model| model.owner.as_deref() == Some("vllm")).then_some(())?;
            recognized(ServerSoftware::Vllm, "/version and model list", Some(version))
        })
        .or_else(|| {
            // A proxy may hide all other evidence.
            let owner = models.first()?.owner.as_deref()?;
            let owners = [
                ("vllm", ServerSoftware::Vllm),
                ("llamacpp", ServerSoftware::LlamaCpp),
                ("xinference", ServerSoftware::Xinference),
            ];
            let (_, kind) = owners.into_iter().find(|(known, _)| *known == owner)?;
            recognized(kind, "owned_by in the model list", None)
        })
}

/// Distinguishes One-API and new-api, which share a header and a status page, by fields that only one of them has.
fn recognize_one_api(probes: &ProbeResponses) -> Option<RecognizedServer> {
    let status = probes.json("/api/status").filter(|status| status.get("success").is_some());
    let data = status.as_ref().and_then(|status| status.get("data")).cloned();
    let has_field = |field: &str| data.as_ref().is_some_and(|data| data.get(field).is_some());
    let version_header = probes.header("x-new-api-version");
    let is_one_api = probes.header("x-oneapi-request-id").is_some() || has_field("quota_per_unit");
    let kind = if version_header.is_some() || has_field("self_use_mode_enabled") || has_field("enable_data_export") {
        ServerSoftware::NewApi
    } else if is_one_api {
        ServerSoftware::OneApi
    } else {
        return None;
    };
    let version = version_header.or_else(|| Some(data.as_ref()?.get("version")?.as_str()?.to_owned()));
    let evidence = if data.is_some() { "/api/status" } else { "headers" };
    // Custom builds report v0.0.0.
    Some(RecognizedServer {
        software: kind,
        version: version.filter(|version| version != "v0.0.0"),
        evidence,
        status: data,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn probes(responses: &[(&'static str, &str)], headers: &[(&'static str, &'static str)]) -> ProbeResponses {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().expect("valid header name"), value.parse().expect("valid header value")))
            .collect();
        let response = |body: &str| FetchResponse {
            status: 200,
            headers: headers.clone(),
            body: body.to_owned(),
            took: Duration::from_millis(1),
        };
        ProbeResponses(responses.iter().map(|(path, body)| (*path, response(body))).collect())
    }

    fn owned_by(owner: &str) -> Vec<ModelInfo> {
        vec![ModelInfo { id: "m".into(), context_window: None, owner: Some(owner.into()) }]
    }

    #[test]
    fn servers_are_recognized() {
        let page = "<!doctype html><title>One API</title>";
        let request = ("x-oneapi-request-id", "2026");
        for (probes, models, expected) in [
            (
                probes(
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
                (ServerSoftware::OneApi, Some("v0.6.10")),
            ),
            (
                probes(
                    &[(
                        "/api/status",
                        r#"{"success":true,"data":{"quota_per_unit":500000,"version":"v0.0.0","self_use_mode_enabled":false}}"#,
                    )],
                    &[request],
                ),
                vec![],
                (ServerSoftware::NewApi, None),
            ),
            (
                probes(&[("/api/status", page)], &[request, ("x-new-api-version", "v1.0.0")]),
                vec![],
                (ServerSoftware::NewApi, Some("v1.0.0")),
            ),
            (
                probes(&[("/health/liveliness", "\"I'm alive!\"")], &[]),
                owned_by("openai"),
                (ServerSoftware::LiteLlm, None),
            ),
            (
                probes(&[("/api/version", r#"{"version":"0.9.1"}"#)], &[]),
                owned_by("library"),
                (ServerSoftware::Ollama, Some("0.9.1")),
            ),
            (
                probes(&[("/version", r#"{"version":"0.8.0"}"#)], &[("server", "uvicorn")]),
                owned_by("vllm"),
                (ServerSoftware::Vllm, Some("0.8.0")),
            ),
            (
                probes(&[("/v1/cluster/auth", r#"{"auth":false}"#)], &[]),
                owned_by("xinference"),
                (ServerSoftware::Xinference, None),
            ),
            (
                probes(&[("/health", r#"{"status":"ok"}"#)], &[("server", "llama.cpp")]),
                owned_by("llamacpp"),
                (ServerSoftware::LlamaCpp, None),
            ),
            (ProbeResponses::default(), owned_by("llamacpp"), (ServerSoftware::LlamaCpp, None)),
        ] {
            let server = recognize(&probes, &models).expect("recognized");
            assert_eq!((server.software, server.version.as_deref()), expected, "{server}");
        }
    }

    #[test]
    fn html_page_for_every_path_is_not_evidence() {
        let page = "<html>hello</html>";
        let everywhere: Vec<_> = PATHS.iter().map(|&path| (path, page)).collect();
        assert_eq!(recognize(&probes(&everywhere, &[]), &owned_by("openai")), None);
        assert_eq!(recognize(&probes(&[("/version", r#"{"version":"1"}"#)], &[]), &owned_by("me")), None);
    }
}
