//! Formats the effective configuration as TOML, without secrets.
//!
//! Keys and headers are shown by their source, never by value; URLs lose their user and query.

use std::fmt::Write as _;

use super::{Config, Preset, ResolvedSettings, RoundContext, Route, ServeConfig};
use crate::{
    model::{
        Params,
        api_key::redact_url,
        endpoint::{Endpoint, Timeouts},
        target::Target,
    },
    routing::{OnIncomplete, strategy::Strategy},
};

/// The configuration in effect, with the source of each setting.
#[must_use]
pub fn effective_toml(config: &Config, settings: &ResolvedSettings) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String, source: &dyn std::fmt::Display| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name} = {value}  # {source}");
    };
    match &config.path {
        Some(path) => line("config", toml_string(&path.display().to_string()), &settings.config.source),
        None => line("config", toml_string(""), &"no config file, keys from the environment"),
    }
    match &settings.model.value {
        Some(model) => line("model", toml_string(model), &settings.model.source),
        None => line("model", toml_string(""), &"not set"),
    }
    line("format", toml_string(&settings.format.value), &settings.format.source);
    if let Some(timeout) = settings.timeout.value {
        line("timeout", toml_string(&format!("{timeout:?}")), &settings.timeout.source);
    }
    line("no_stdin", settings.no_stdin.value.to_string(), &settings.no_stdin.source);
    line("plain", settings.plain.value.to_string(), &settings.plain.source);
    line("log", settings.log.value.to_string(), &settings.log.source);
    if let Some(compare) = &config.compare {
        line("compare", toml_string(compare), &"config file");
    }
    let default_or_file = |is_default: bool| if is_default { "default" } else { "config file" };
    line("context", toml_string(config.context.as_str()), &default_or_file(config.context == RoundContext::default()));
    line("history", config.history.store_content.to_string(), &default_or_file(config.history.store_content));
    if let Some(days) = config.history.retention_days {
        line("history_days", days.to_string(), &"config file");
    }
    for endpoint in &config.endpoints {
        out.push_str(&endpoint_toml(endpoint));
    }
    for model in &config.models {
        out.push_str(&model_toml(model));
    }
    for route in &config.routes {
        out.push_str(&route_toml(route));
    }
    if config.serve != ServeConfig::default() {
        out.push_str(&serve_toml(&config.serve));
    }
    if !config.sets.is_empty() {
        out.push_str("\n[sets]\n");
    }
    for set in &config.sets {
        let members: Vec<_> = set.members.iter().map(|member| toml_string(member)).collect();
        let _ = writeln!(out, "{} = [{}]", toml_key(&set.name), members.join(", "));
    }
    for preset in &config.presets {
        out.push('\n');
        out.push_str(&preset_toml(preset));
    }
    out
}

/// A preset as a TOML table.
#[must_use]
pub fn preset_toml(preset: &Preset) -> String {
    let mut out = format!("[presets.{}]\n", toml_key(&preset.name));
    for (name, value) in [("system", &preset.system), ("model", &preset.model), ("prompt", &preset.prompt)] {
        if let Some(value) = value {
            let _ = writeln!(out, "{name} = {}", toml_string(value));
        }
    }
    out.push_str(&params_toml(&preset.params));
    out
}

fn endpoint_toml(endpoint: &Endpoint) -> String {
    let mut out = format!(
        "\n[endpoints.{}]\nbase_url = {}\n",
        toml_key(&endpoint.name),
        toml_string(&redact_url(&endpoint.base_url))
    );
    let _ = writeln!(out, "protocol = {}", toml_string(endpoint.protocol.0));
    for source in &endpoint.keys {
        let _ = writeln!(out, "# key: {source}");
    }
    for (name, source) in &endpoint.headers {
        let _ = writeln!(out, "# header {name}: {source}");
    }
    if let Some(proxy) = &endpoint.connect.proxy {
        let _ = writeln!(out, "proxy = {}", toml_string(&redact_url(proxy)));
    }
    if let Some(file) = &endpoint.connect.ca_file {
        let _ = writeln!(out, "ca_file = {}", toml_string(&file.display().to_string()));
    }
    if let Some(limit) = endpoint.limits.max_concurrency {
        let _ = writeln!(out, "max_concurrency = {limit}");
    }
    if let Some(rpm) = endpoint.limits.rpm {
        let _ = writeln!(out, "rpm = {rpm}");
    }
    if let Some(queue) = endpoint.limits.queue_timeout {
        let _ = writeln!(out, "queue = \"{queue:?}\"");
    }
    for (name, enabled) in [("gateway", endpoint.gateway), ("gzip", endpoint.gzip)] {
        if enabled {
            let _ = writeln!(out, "{name} = true");
        }
    }
    out.push_str(&timeouts_toml(endpoint.timeouts));
    out
}

fn model_toml(model: &Target) -> String {
    let mut out = format!(
        "\n[models.{}]\nendpoint = {}\nmodel = {}\n",
        toml_key(&model.id.0),
        toml_string(&model.endpoint.name),
        toml_string(&model.upstream_id)
    );
    out.push_str(&params_toml(&model.params));
    if let Some(context) = model.context_window {
        let _ = writeln!(out, "context = {context}");
    }
    if let Some(price) = &model.price {
        let (input, output, currency) = (price.input, price.output, toml_string(&price.currency));
        let cached = price.cached_input.map(|cached| format!(", cached_input = {cached:?}")).unwrap_or_default();
        let _ = writeln!(out, "price = {{ input = {input:?}, output = {output:?}{cached}, currency = {currency} }}");
    }
    if !model.tags.is_empty() {
        let tags: Vec<_> = model.tags.iter().map(|tag| toml_string(tag)).collect();
        let _ = writeln!(out, "tags = [{}]", tags.join(", "));
    }
    for (name, enabled) in [
        ("think_prefilled", model.decode_options.think_prefilled),
        ("cumulative_deltas", model.decode_options.cumulative_deltas),
    ] {
        if enabled {
            let _ = writeln!(out, "{name} = true");
        }
    }
    out.push_str(&timeouts_toml(model.timeouts));
    out
}

fn route_toml(route: &Route) -> String {
    let policy = &route.policy;
    let weighted = policy.strategy == Strategy::Weighted;
    let models = route.models.iter().zip(&policy.weights).map(|(model, weight)| match toml_string(&model.id.0) {
        name if weighted => format!("{{ name = {name}, weight = {weight} }}"),
        name => name,
    });
    let models = models.collect::<Vec<_>>().join(", ");
    let mut out = format!(
        "\n[routes.{}]\nstrategy = \"{}\"\nmodels = [{models}]\n",
        toml_key(&route.name),
        policy.strategy.as_str()
    );
    if policy.sticky {
        out.push_str("sticky = true\n");
    }
    if let Some(after) = policy.hedge_after {
        let _ = writeln!(out, "hedge_after = \"{after:?}\"");
    }
    if let Some(hold) = route.hold {
        let _ = writeln!(out, "hold = \"{hold:?}\"");
    }
    if let Some(on_incomplete) = route.on_incomplete {
        let value = match on_incomplete {
            OnIncomplete::Error => "error",
            OnIncomplete::Restart => "restart",
            OnIncomplete::Buffer => "buffer",
        };
        let _ = writeln!(out, "on_incomplete = \"{value}\"");
    }
    if route.failover_on_filter {
        out.push_str("on_filter = \"next\"\n");
    }
    out
}

fn serve_toml(serve: &ServeConfig) -> String {
    let ServeConfig { listen, hold, drain, max_body, hosts, cors, tls, clients } = serve;
    let megabytes = max_body / 1024 / 1024;
    let mut out = format!(
        "\n[serve]\nlisten = {}\nhold = \"{hold:?}\"\ndrain = \"{drain:?}\"\nmax_body_mb = {megabytes}\n",
        toml_string(listen)
    );
    for (name, list) in [("hosts", hosts), ("cors", cors)] {
        if !list.is_empty() {
            let _ = writeln!(
                out,
                "{name} = [{}]",
                list.iter().map(|item| toml_string(item)).collect::<Vec<_>>().join(", ")
            );
        }
    }
    if let Some((cert, key)) = tls {
        for (name, path) in [("cert", cert), ("key", key)] {
            let _ = writeln!(out, "{name} = {}", toml_string(&path.display().to_string()));
        }
    }
    for client in clients {
        let _ = writeln!(out, "\n[serve.keys.{}]\n# key: {}", toml_key(&client.name), client.key);
        if let Some(models) = &client.models {
            let models = models.iter().map(|model| toml_string(model)).collect::<Vec<_>>().join(", ");
            let _ = writeln!(out, "models = [{models}]");
        }
        let _ = writeln!(out, "metrics = {}", client.metrics);
        for (name, limit) in [("rpm", client.rpm), ("max_concurrency", client.max_concurrency)] {
            if let Some(limit) = limit {
                let _ = writeln!(out, "{name} = {limit}");
            }
        }
        if !client.spend.is_empty() {
            let amounts = client.spend.iter().map(|(currency, amount)| format!("{currency} = {amount:?}"));
            let _ = writeln!(out, "spend = {{ {} }}", amounts.collect::<Vec<_>>().join(", "));
        }
    }
    out
}

fn params_toml(params: &Params) -> String {
    let mut entries = Vec::new();
    let mut add_entry =
        |name: &str, value: Option<String>| entries.extend(value.map(|value| format!("{name} = {value}")));
    add_entry("temperature", params.temperature.map(|value| format!("{value:?}")));
    add_entry("top_p", params.top_p.map(|value| format!("{value:?}")));
    add_entry("max_tokens", params.max_tokens.map(|value| value.to_string()));
    add_entry("seed", params.seed.map(|value| value.to_string()));
    let stop: Vec<String> = params.stop.iter().map(|stop| toml_string(stop)).collect();
    add_entry("stop", (!stop.is_empty()).then(|| format!("[{}]", stop.join(", "))));
    add_entry("reasoning_effort", params.reasoning_effort.as_deref().map(toml_string));
    let mut out = if entries.is_empty() { String::new() } else { format!("params = {{ {} }}\n", entries.join(", ")) };
    for (name, value) in &params.extra {
        // A JSON value that TOML cannot represent (null) is shown as JSON.
        let toml = toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string());
        let _ = writeln!(out, "extra.{} = {toml}", toml_key(name));
    }
    out
}

fn timeouts_toml(timeouts: Timeouts) -> String {
    let timeouts = [
        ("connect", timeouts.connect),
        ("first_token", timeouts.first_token),
        ("idle", timeouts.idle),
        ("total", timeouts.total),
    ];
    let entries: Vec<_> = timeouts
        .iter()
        .filter_map(|(name, timeout)| timeout.map(|timeout| format!("{name} = \"{timeout:?}\"")))
        .collect();
    if entries.is_empty() { String::new() } else { format!("timeouts = {{ {} }}\n", entries.join(", ")) }
}

fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn toml_key(name: &str) -> String {
    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { name.to_owned() } else { toml_string(name) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{config::Flags, model::environment::Environment};

    #[test]
    fn secrets_are_shown_by_source_only() {
        let text = r#"
[endpoints.a]
base_url = "https://user:hunter2@h/v1?key=topsecret"
api_keys = ["sk-literal-secret", { env = "A_KEY" }]
headers = { X-Token = "header-secret-value" }
proxy = "http://me:proxy-secret@p:1"
[serve.keys.team]
api_key = "client-secret-value"
rpm = 7
"#;
        let config = super::super::resolve(text, Path::new("c.toml")).expect("valid config");
        let settings = ResolvedSettings::new(&Environment::default(), &Flags::default()).expect("valid settings");
        let toml = effective_toml(&config, &settings);
        for secret in ["hunter2", "topsecret", "literal-secret", "header-secret", "proxy-secret", "client-secret"] {
            assert!(!toml.contains(secret), "{secret} in\n{toml}");
        }
        assert!(toml.contains("[serve.keys.team]") && toml.contains("rpm = 7"), "{toml}");
        assert!(toml.contains("environment variable A_KEY") && toml.contains("header x-token"), "{toml}");
    }

    #[test]
    fn shown_route_parses_to_the_same_route() {
        let text = r#"
context = "shared"
[endpoints.e]
base_url = "http://h/v1"
[routes.r]
strategy = "weighted"
models = [{ name = "e/a", weight = 3 }, "e/b"]
sticky = true
hedge_after = "2s"
on_incomplete = "restart"
on_filter = "next"
"#;
        let config = super::super::resolve(text, Path::new("c.toml")).expect("valid config");
        let settings = ResolvedSettings::new(&Environment::default(), &Flags::default()).expect("valid settings");
        let toml = effective_toml(&config, &settings);
        assert!(toml.contains("context = \"shared\"  # config file"), "{toml}");
        let route = toml.find("[routes.r]").expect("the route is shown");
        let text = format!("[endpoints.e]\nbase_url = \"http://h/v1\"\n{}", &toml[route..]);
        let parsed = super::super::resolve(&text, Path::new("d.toml")).expect("valid config");
        let route_settings = |config: &Config| {
            let route = &config.routes[0];
            (route.policy.clone(), route.on_incomplete, route.failover_on_filter)
        };
        assert_eq!(route_settings(&parsed), route_settings(&config));
    }
}
