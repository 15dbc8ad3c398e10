//! The fields of a request by which gateways and services choose another model, address or account.
//!
//! A client that may use only some models could otherwise choose any model behind an allowed one. The names are those of
//! LiteLLM, OpenRouter, Vercel's AI Gateway, Portkey and of servers of local models.

use crate::{model::RawRequest, protocol::framing::json_splice::RawObject};

/// Names of fields, sorted.
const NAMES: [&str; 57] = [
    "api_base",
    "api_key",
    "api_url",
    "api_version",
    "apibase",
    "apikey",
    "base_model",
    "base_url",
    "baseurl",
    "compound_custom",
    "config",
    "content_policy_fallbacks",
    "context_window_fallback_dict",
    "context_window_fallbacks",
    "custom_llm_provider",
    "data_sources",
    "default_fallbacks",
    "default_headers",
    "deployment",
    "deployment_id",
    "draft_model",
    "endpoint",
    "engine",
    "extra_body",
    "extra_headers",
    "fallback",
    "fallback_model",
    "fallback_models",
    "fallbacks",
    "headers",
    "host",
    "kv_transfer_params",
    "litellm_credential_name",
    "litellm_metadata",
    "litellm_params",
    "llm_provider",
    "lora",
    "lora_path",
    "model_info",
    "model_list",
    "models",
    "openai_api_base",
    "openai_api_key",
    "organization",
    "plugins",
    "preset",
    "prompt_id",
    "provider",
    "provider_options",
    "provideroptions",
    "region_name",
    "route",
    "router",
    "router_settings_override",
    "specific_deployment",
    "tags",
    "user_config",
];

/// Starts of names: the address and account of a cloud.
const PREFIXES: [&str; 5] = ["aws_", "azure_", "tensorzero::", "vertex_", "watsonx_"];

fn is_routing_field(name: &str) -> bool {
    // Servers written in Go ignore case in names, also that of letters such as `ſ`.
    let name = name.to_uppercase().to_lowercase();
    NAMES.binary_search(&name.as_str()).is_ok() || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Marks the fields that choose other models or addresses, so that they are not sent.
pub(super) fn restrict(request: &mut RawRequest) {
    // A body that cannot be read is not sent at all.
    let Ok(object) = RawObject::parse(&request.body) else { return };
    request.removed_fields = object.names().filter(|name| is_routing_field(name)).map(str::to_owned).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_found_in_any_case() {
        assert!(NAMES.is_sorted());
        for name in ["models", "Fallbacks", "API_BASE", "modelſ", "aws_region_name", "providerOptions"] {
            assert!(is_routing_field(name), "{name}");
        }
        for name in ["model", "messages", "user", "metadata", "tools", "stream", "top_p"] {
            assert!(!is_routing_field(name), "{name}");
        }
    }
}
