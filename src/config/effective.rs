//! The configuration as it is in force, as TOML, without its secrets.
//!
//! Owns the redaction: keys are named by where they come from, headers never show a value, addresses lose their user
//! and query. Refuses to print: the text is the caller's.

use std::fmt::Write as _;

use super::{Config, Layers, Preset, RoundContext, Route, Serve};
use crate::{
    model::{
        Params,
        api_key::masked_url,
        endpoint::{Endpoint, Timeouts},
        target::Target,
    },
    routing::{OnCut, strategy::Strategy},
};

/// Everything in force, with the source of each setting.
#[must_use]
pub fn shown(config: &Config, layers: &Layers) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String, source: &dyn std::fmt::Display| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name} = {value}  # {source}");
    };
    match &config.path {
        Some(path) => line("config", quoted(&path.display().to_string()), &layers.config.source),
        None => line("config", quoted(""), &"no file: well-known keys of the environment"),
    }
    match &layers.model.value {
        Some(model) => line("model", quoted(model), &layers.model.source),
        None => line("model", quoted(""), &"nothing chosen"),
    }
    line("format", quoted(&layers.format.value), &layers.format.source);
    if let Some(timeout) = layers.timeout.value {
        line("timeout", quoted(&format!("{timeout:?}")), &layers.timeout.source);
    }
    line("no_stdin", layers.no_stdin.value.to_string(), &layers.no_stdin.source);
    line("plain", layers.plain.value.to_string(), &layers.plain.source);
    line("log", layers.log.value.to_string(), &layers.log.source);
    if let Some(compare) = &config.compare {
        line("compare", quoted(compare), &"config file");
    }
    let stated = |is_default: bool| if is_default { "as by default" } else { "config file" };
    line("context", quoted(config.context.as_str()), &stated(config.context == RoundContext::default()));
    line("history", config.history.on.to_string(), &stated(config.history.on));
    if let Some(days) = config.history.days {
        line("history_days", days.to_string(), &"config file");
    }
    for endpoint in &config.endpoints {
        out.push_str(&endpoint_text(endpoint));
    }
    for model in &config.models {
        out.push_str(&model_text(model));
    }
    for route in &config.routes {
        out.push_str(&route_text(route));
    }
    if config.serve != Serve::default() {
        out.push_str(&serve_text(&config.serve));
    }
    if !config.sets.is_empty() {
        out.push_str("\n[sets]\n");
    }
    for set in &config.sets {
        let members: Vec<_> = set.members.iter().map(|member| quoted(member)).collect();
        let _ = writeln!(out, "{} = [{}]", key(&set.name), members.join(", "));
    }
    for preset in &config.presets {
        out.push('\n');
        out.push_str(&preset_text(preset));
    }
    out
}

/// A preset as it stands in the config.
#[must_use]
pub fn preset_text(preset: &Preset) -> String {
    let mut out = format!("[presets.{}]\n", key(&preset.name));
    for (name, value) in [("system", &preset.system), ("model", &preset.model), ("prompt", &preset.prompt)] {
        if let Some(value) = value {
            let _ = writeln!(out, "{name} = {}", quoted(value));
        }
    }
    out.push_str(&params_text(&preset.params));
    out
}

fn endpoint_text(endpoint: &Endpoint) -> String {
    let mut out =
        format!("\n[endpoints.{}]\nbase_url = {}\n", key(&endpoint.name), quoted(&masked_url(&endpoint.base_url)));
    let _ = writeln!(out, "protocol = {}", quoted(endpoint.protocol.0));
    for source in &endpoint.keys {
        let _ = writeln!(out, "# key: {source}");
    }
    for (name, source) in &endpoint.headers {
        let _ = writeln!(out, "# header {name}: {source}");
    }
    if let Some(proxy) = &endpoint.connect.proxy {
        let _ = writeln!(out, "proxy = {}", quoted(&masked_url(proxy)));
    }
    if let Some(file) = &endpoint.connect.ca_file {
        let _ = writeln!(out, "ca_file = {}", quoted(&file.display().to_string()));
    }
    if let Some(most) = endpoint.limits.max_concurrency {
        let _ = writeln!(out, "max_concurrency = {most}");
    }
    if let Some(rpm) = endpoint.limits.rpm {
        let _ = writeln!(out, "rpm = {rpm}");
    }
    if let Some(queue) = endpoint.limits.queue {
        let _ = writeln!(out, "queue = \"{queue:?}\"");
    }
    for (name, on) in [("gateway", endpoint.gateway), ("gzip", endpoint.gzip)] {
        if on {
            let _ = writeln!(out, "{name} = true");
        }
    }
    out.push_str(&timeouts_text(endpoint.timeouts));
    out
}

fn model_text(model: &Target) -> String {
    let mut out = format!(
        "\n[models.{}]\nendpoint = {}\nmodel = {}\n",
        key(&model.id.0),
        quoted(&model.endpoint.name),
        quoted(&model.upstream)
    );
    out.push_str(&params_text(&model.params));
    if let Some(context) = model.context {
        let _ = writeln!(out, "context = {context}");
    }
    if let Some(price) = &model.price {
        let (input, output, currency) = (price.input, price.output, quoted(&price.currency));
        let cached = price.cached_input.map(|cached| format!(", cached_input = {cached:?}")).unwrap_or_default();
        let _ = writeln!(out, "price = {{ input = {input:?}, output = {output:?}{cached}, currency = {currency} }}");
    }
    if !model.tags.is_empty() {
        let tags: Vec<_> = model.tags.iter().map(|tag| quoted(tag)).collect();
        let _ = writeln!(out, "tags = [{}]", tags.join(", "));
    }
    for (name, on) in
        [("think_prefilled", model.decode.think_prefilled), ("cumulative_deltas", model.decode.cumulative_deltas)]
    {
        if on {
            let _ = writeln!(out, "{name} = true");
        }
    }
    out.push_str(&timeouts_text(model.timeouts));
    out
}

fn route_text(route: &Route) -> String {
    let policy = &route.policy;
    let weighted = policy.strategy == Strategy::Weighted;
    let models = route.models.iter().zip(&policy.weights).map(|(model, weight)| match quoted(&model.id.0) {
        name if weighted => format!("{{ name = {name}, weight = {weight} }}"),
        name => name,
    });
    let models = models.collect::<Vec<_>>().join(", ");
    let mut out =
        format!("\n[routes.{}]\nstrategy = \"{}\"\nmodels = [{models}]\n", key(&route.name), policy.strategy.as_str());
    if policy.sticky {
        out.push_str("sticky = true\n");
    }
    if let Some(after) = policy.hedge_after {
        let _ = writeln!(out, "hedge_after = \"{after:?}\"");
    }
    if let Some(hold) = route.hold {
        let _ = writeln!(out, "hold = \"{hold:?}\"");
    }
    if let Some(on_cut) = route.on_cut {
        let word = match on_cut {
            OnCut::Error => "error",
            OnCut::Restart => "restart",
            OnCut::Buffer => "buffer",
        };
        let _ = writeln!(out, "on_cut = \"{word}\"");
    }
    if route.filter_goes_on {
        out.push_str("on_filter = \"next\"\n");
    }
    out
}

fn serve_text(serve: &Serve) -> String {
    let Serve { listen, hold, drain, max_body, hosts, cors, tls, clients } = serve;
    let megabytes = max_body / 1024 / 1024;
    let mut out = format!(
        "\n[serve]\nlisten = {}\nhold = \"{hold:?}\"\ndrain = \"{drain:?}\"\nmax_body_mb = {megabytes}\n",
        quoted(listen)
    );
    for (name, list) in [("hosts", hosts), ("cors", cors)] {
        if !list.is_empty() {
            let _ = writeln!(out, "{name} = [{}]", list.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "));
        }
    }
    if let Some((cert, key)) = tls {
        for (name, path) in [("cert", cert), ("key", key)] {
            let _ = writeln!(out, "{name} = {}", quoted(&path.display().to_string()));
        }
    }
    for client in clients {
        let _ = writeln!(out, "\n[serve.keys.{}]\n# key: {}", key(&client.name), client.key);
        if let Some(models) = &client.models {
            let models = models.iter().map(|model| quoted(model)).collect::<Vec<_>>().join(", ");
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

fn params_text(params: &Params) -> String {
    let mut set = Vec::new();
    let mut put = |name: &str, value: Option<String>| set.extend(value.map(|value| format!("{name} = {value}")));
    put("temperature", params.temperature.map(|value| format!("{value:?}")));
    put("top_p", params.top_p.map(|value| format!("{value:?}")));
    put("max_tokens", params.max_tokens.map(|value| value.to_string()));
    put("seed", params.seed.map(|value| value.to_string()));
    let stop: Vec<String> = params.stop.iter().map(|stop| quoted(stop)).collect();
    put("stop", (!stop.is_empty()).then(|| format!("[{}]", stop.join(", "))));
    put("reasoning_effort", params.reasoning_effort.as_deref().map(quoted));
    let mut out = if set.is_empty() { String::new() } else { format!("params = {{ {} }}\n", set.join(", ")) };
    for (name, value) in &params.extra {
        // A value of JSON's that TOML has no word for (null) is shown as JSON.
        let shown = toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string());
        let _ = writeln!(out, "extra.{} = {shown}", key(name));
    }
    out
}

fn timeouts_text(timeouts: Timeouts) -> String {
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

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn key(name: &str) -> String {
    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { name.to_owned() } else { quoted(name) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{config::Flags, model::environment::Environment};

    #[test]
    fn secrets_are_named_and_never_shown() {
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
        let config = super::super::resolve(text, Path::new("c.toml")).expect("good");
        let layers = Layers::new(&Environment::default(), &Flags::default()).expect("fine");
        let shown = shown(&config, &layers);
        for secret in ["hunter2", "topsecret", "literal-secret", "header-secret", "proxy-secret", "client-secret"] {
            assert!(!shown.contains(secret), "{secret} in\n{shown}");
        }
        assert!(shown.contains("[serve.keys.team]") && shown.contains("rpm = 7"), "{shown}");
        assert!(shown.contains("environment variable A_KEY") && shown.contains("header x-token"), "{shown}");
    }

    #[test]
    fn a_route_is_shown_as_it_chooses() {
        let text = r#"
context = "shared"
[endpoints.e]
base_url = "http://h/v1"
[routes.r]
strategy = "weighted"
models = [{ name = "e/a", weight = 3 }, "e/b"]
sticky = true
hedge_after = "2s"
on_cut = "restart"
on_filter = "next"
"#;
        let config = super::super::resolve(text, Path::new("c.toml")).expect("good");
        let layers = Layers::new(&Environment::default(), &Flags::default()).expect("fine");
        let shown = shown(&config, &layers);
        assert!(shown.contains("context = \"shared\"  # config file"), "{shown}");
        // What is shown of a route says the same when it is read.
        let route = shown.find("[routes.r]").expect("it is shown");
        let again = format!("[endpoints.e]\nbase_url = \"http://h/v1\"\n{}", &shown[route..]);
        let again = super::super::resolve(&again, Path::new("d.toml")).expect("good");
        let facts = |config: &Config| {
            let route = &config.routes[0];
            (route.policy.clone(), route.on_cut, route.filter_goes_on)
        };
        assert_eq!(facts(&again), facts(&config));
    }
}
