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
pub fn effective_toml(config: &Config, layers: &ResolvedSettings) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String, source: &dyn std::fmt::Display| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name} = {value}  # {source}");
    };
    match &config.path {
        Some(path) => line("config", toml_string(&path.display().to_string()), &layers.config.source),
        None => line("config", toml_string(""), &"no config file, keys from the environment"),
    }
    match &layers.model.value {
        Some(model) => line("model", toml_string(model), &layers.model.source),
        None => line("model", toml_string(""), &"not set"),
    }
    line("format", toml_string(&layers.format.value), &layers.format.source);
    if let Some(timeout) = layers.timeout.value {
        line("timeout", toml_string(&format!("{timeout:?}")), &layers.timeout.source);
    }
    line("no_stdin", layers.no_stdin.value.to_string(), &layers.no_stdin.source);
    line("plain", layers.plain.value.to_string(), &layers.plain.source);
    line("log", layers.log.value.to_string(), &layers.log.source);
    if let Some(compare) = &config.compare {
        line("compare", toml_string(compare), &"config file");
    }
    let stated = |is_default: bool| if is_default { "default" } else { "config file" };
    line("context", toml_string(config.context.as_str()), &stated(config.context == RoundContext::default()));
    line("history", config.history.store_content.to_string(), &stated(config.history.store_content));
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
    for (name, on) in [("gateway", endpoint.gateway), ("gzip", endpoint.gzip)] {
        if on {
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
    for (name, on) in [
        ("think_prefilled", model.decode_options.think_prefilled),
        ("cumulative_deltas", model.decode_options.cumulative_deltas),
    ] {
        if on {
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
        let word = match on_incomplete {
            OnIncomplete::Error => "error",
            OnIncomplete::Restart => "restart",
            OnIncomplete::Buffer => "buffer",
        };
        let _ = writeln!(out, "on_incomplete = \"{word}\"");
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
            let sums = client.spend.iter().map(|(currency, amount)| format!("{currency} = {amount:?}"));
            let _ = writeln!(out, "spend = {{ {} }}", sums.collect::<Vec<_>>().join(", "));
        }
    }
    out
}

fn params_toml(params: &Params) -> String {
    let mut set = Vec::new();
    let mut put = |name: &str, value: Option<String>| set.extend(value.map(|value| format!("{name} = {value}")));
    put("temperature", params.temperature.map(|value| format!("{value:?}")));
    put("top_p", params.top_p.map(|value| format!("{value:?}")));
    put("max_tokens", params.max_tokens.map(|value| value.to_string()));
    put("seed", params.seed.map(|value| value.to_string()));
    let stop: Vec<String> = params.stop.iter().map(|stop| toml_string(stop)).collect();
    put("stop", (!stop.is_empty()).then(|| format!("[{}]", stop.join(", "))));
    put("reasoning_effort", params.reasoning_effort.as_deref().map(toml_string));
    let mut out = if set.is_empty() { String::new() } else { format!("params = {{ {} }}\n", set.join(", ")) };
    for (name, value) in &params.extra {
        // A JSON value that TOML cannot represent (null) is shown as JSON.
        let shown = toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string());
        let _ = writeln!(out, "extra.{} = {shown}", toml_key(name));
    }
    out
}

fn timeouts_toml(timeouts: Timeouts) -> String {
    let parts = [
        ("connect", timeouts.connect),
        ("first_token", timeouts.first_token),
        ("idle", timeouts.idle),
        ("total", timeouts.total),
    ];
    let set: Vec<_> =
        parts.iter().filter_map(|(name, time)| time.map(|time| format!("{name} = \"{time:?}\""))).collect();
    if set.is_empty() { String::new() } else { format!("timeouts = {{ {} }}\n", set.join(", ")) }
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
        let layers = ResolvedSettings::new(&Environment::default(), &Flags::default()).expect("valid settings");
        let shown = effective_toml(&config, &layers);
        for secret in ["hunter2", "topsecret", "literal-secret", "header-secret", "proxy-secret", "client-secret"] {
            assert!(!shown.contains(secret), "{secret} in\n{shown}");
        }
        assert!(shown.contains("[serve.keys.team]") && shown.contains("rpm = 7"), "{shown}");
        assert!(shown.contains("environment variable A_KEY") && shown.contains("header x-token"), "{shown}");
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
        let layers = ResolvedSettings::new(&Environment::default(), &Flags::default()).expect("valid settings");
        let shown = effective_toml(&config, &layers);
        assert!(shown.contains("context = \"shared\"  # config file"), "{shown}");
        let route = shown.find("[routes.r]").expect("the route is shown");
        let text = format!("[endpoints.e]\nbase_url = \"http://h/v1\"\n{}", &shown[route..]);
        let parsed = super::super::resolve(&text, Path::new("d.toml")).expect("valid config");
        let settings = |config: &Config| {
            let route = &config.routes[0];
            (route.policy.clone(), route.on_incomplete, route.failover_on_filter)
        };
        assert_eq!(settings(&parsed), settings(&config));
    }
}
