//! Validates `[serve]`.

use super::{Resolver, bytes_of_mebibytes};
use crate::config::{
    Alias, ClientConfig, ServeConfig,
    error::Problem,
    file::{ClientEntry, ServeEntry},
    names::normalize_name,
    serve::matches_name,
    values::{KeyEntry, Spanned},
};

/// Headers that belong to one connection, have a key, or are set by mmchat itself.
const RESERVED_HEADERS: [&str; 19] = [
    "authorization",
    "proxy-authorization",
    "api-key",
    "x-api-key",
    "cookie",
    "set-cookie",
    "host",
    "connection",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "retry-after",
    "x-should-retry",
    "www-authenticate",
];

impl Resolver {
    pub(super) fn resolve_serve(&mut self, entry: &ServeEntry) {
        let defaults = ServeConfig::default();
        let listen = entry.listen.as_ref().map(|listen| self.check_listen(listen));
        let per_address = entry.max_connections_per_address.as_ref();
        let max_connections_per_address = self.at_least_one("max_connections_per_address", per_address);
        let memory_mb = self.at_least_one("memory_mb", entry.memory_mb.as_ref());
        let max_body_mb = self.at_least_one("max_body_mb", entry.max_body_mb.as_ref());
        // A body is held as it came, and as it is sent; new requests may take three quarters of the memory.
        let needed_mb =
            max_body_mb.map_or(defaults.max_body, bytes_of_mebibytes).saturating_mul(3) / bytes_of_mebibytes(1);
        if let Some(memory) = entry.memory_mb.as_ref().filter(|memory| (memory.value as usize) < needed_mb) {
            self.add_problem(format!("memory_mb must be at least {needed_mb}, three times max_body_mb"), &memory.span);
        }
        let serve = ServeConfig {
            listen: listen.unwrap_or(defaults.listen),
            hold: entry.hold.map_or(defaults.hold, |duration| duration.0),
            drain: entry.drain.map_or(defaults.drain, |duration| duration.0),
            idle: entry.idle.map_or(defaults.idle, |duration| duration.0),
            request_headers: self.header_names(entry.request_headers.as_deref()).unwrap_or(defaults.request_headers),
            response_headers: self.header_names(entry.response_headers.as_deref()).unwrap_or(defaults.response_headers),
            max_connections_per_address: max_connections_per_address.map(|max| max as usize),
            memory: memory_mb.map_or(defaults.memory, bytes_of_mebibytes),
            max_body: max_body_mb.map_or(defaults.max_body, bytes_of_mebibytes),
            hosts: entry.hosts.iter().flatten().map(|host| self.check_host(host)).collect(),
            cors: entry.cors.iter().flatten().filter_map(|origin| self.check_origin(origin)).collect(),
            tls: self.resolve_tls(entry),
            aliases: entry.aliases.0.iter().map(|(name, target)| self.alias(name, target)).collect(),
            clients: entry.keys.0.iter().filter_map(|(name, entry)| self.resolve_client(name, entry)).collect(),
        };
        self.config.serve = serve;
    }

    fn check_listen(&mut self, listen: &Spanned<String>) -> String {
        let port =
            listen.value.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) {
            self.add_problem("listen is not an address with a port", &listen.span).help = Some(format!(
                "use an address such as \"127.0.0.1:{0}\", \"[::1]:{0}\" or \"0.0.0.0:{0}\"",
                ServeConfig::DEFAULT_PORT
            ));
        }
        listen.value.clone()
    }

    /// Checks a host name; it must not contain a port.
    fn check_host(&mut self, host: &Spanned<String>) -> String {
        let name = host.value.to_ascii_lowercase();
        if name.is_empty() || name.contains([':', '/', '[', ' ']) {
            self.add_problem(format!("invalid host name \"{}\"", host.value), &host.span).help =
                Some("use a host name without a port, such as \"models.local\"".into());
        }
        name
    }

    fn check_origin(&mut self, origin: &Spanned<String>) -> Option<String> {
        let text = origin.value.trim();
        let url = url::Url::parse(text).ok();
        match url {
            Some(url) if matches!(url.scheme(), "http" | "https") => Some(url.origin().ascii_serialization()),
            // The origin of an app or an extension, as its runtime sends it.
            Some(url) if text.contains("://") && matches!(url.path(), "" | "/") => {
                Some(text.trim_end_matches('/').to_owned())
                    .map(|text| if text.ends_with(':') { text + "//" } else { text })
            }
            _ if text == "null" => Some(text.to_owned()),
            _ => {
                self.add_problem(format!("invalid origin \"{}\"", origin.value), &origin.span).help =
                    Some("use an origin such as \"https://chat.example.com\" or \"chrome-extension://ID\"".into());
                None
            }
        }
    }

    fn alias(&mut self, name: &Spanned<String>, target: &Spanned<String>) -> Alias {
        let pattern = normalize_name(&name.value);
        if pattern.matches('*').count() > 1 {
            self.add_problem(format!("alias \"{pattern}\" has more than one `*`"), &name.span).help =
                Some("use one `*`, at the start or the end".into());
        }
        let target = match target.value.matches('*').count() {
            0 => self.check_model_or_route(target, "[serve.aliases]"),
            count => {
                self.check_alias_target(target, count, pattern.contains('*'));
                normalize_name(&target.value)
            }
        };
        Alias { pattern, target }
    }

    /// Checks a target with a `*`. What it stands for is known only with a request.
    fn check_alias_target(&mut self, target: &Spanned<String>, count: usize, has_pattern: bool) {
        let endpoint = target.value.split_once('/').map(|(endpoint, _)| normalize_name(endpoint));
        let is_unknown = |name: &String| !name.contains('*') && self.config.endpoint(name).is_none();
        let message = if count > 1 || !has_pattern {
            "a `*` in the target stands for that of the name, which must have one".to_owned()
        } else if let Some(name) = endpoint.filter(is_unknown) {
            format!("unknown endpoint \"{name}\" in [serve.aliases]")
        } else {
            return;
        };
        self.add_problem(message, &target.span).help = Some("use a target such as \"endpoint/*\"".into());
    }

    /// Checks the names of headers that are passed on.
    fn header_names(&mut self, names: Option<&[Spanned<String>]>) -> Option<Vec<String>> {
        let names = names?;
        for name in names {
            let stem = name.value.strip_suffix('*').unwrap_or(&name.value).to_ascii_lowercase();
            if http::HeaderName::try_from(stem.as_str()).is_err() {
                self.add_problem(format!("invalid header name \"{}\"", name.value), &name.span).help =
                    Some("use a name such as \"openai-beta\" or \"x-ratelimit-*\"".into());
            } else if RESERVED_HEADERS.iter().any(|reserved| matches_name(&name.value.to_ascii_lowercase(), reserved)) {
                let message = format!("header \"{}\" cannot be passed on", name.value);
                self.add_problem(message, &name.span).help =
                    Some("it has a key, describes a connection, or is set by mmchat itself".into());
            }
        }
        Some(names.iter().map(|name| name.value.to_ascii_lowercase()).collect())
    }

    fn resolve_tls(&mut self, entry: &ServeEntry) -> Option<(std::path::PathBuf, std::path::PathBuf)> {
        match (&entry.cert, &entry.key) {
            (Some(cert), Some(key)) => Some((self.resolve_path(&cert.value, cert), self.resolve_path(&key.value, key))),
            (None, None) => None,
            (Some(path), None) | (None, Some(path)) => {
                self.add_problem("`cert` and `key` must be set together", &path.span).help =
                    Some("set both for https, or neither".into());
                None
            }
        }
    }

    fn resolve_client(&mut self, name: &Spanned<String>, entry: &ClientEntry) -> Option<ClientConfig> {
        let label = format!("[serve.keys.{}]", name.value);
        if let KeyEntry::Literal(key) = &entry.api_key.value
            && (1..ServeConfig::MIN_KEY_CHARS).contains(&key.trim().chars().count())
        {
            let message = format!("the key is shorter than {} characters", ServeConfig::MIN_KEY_CHARS);
            self.add_problem(message, &entry.api_key.span);
        }
        let models = entry.models.as_ref();
        if models.is_some_and(Vec::is_empty) {
            let problem = Problem::new(&self.source, format!("{label} allows no models"), name.span.clone());
            self.push_problem(problem.help("remove `models` to allow all"));
        }
        let models = models.map(|models| models.iter().map(|model| self.check_model_or_route(model, &label)).collect());
        Some(ClientConfig {
            name: normalize_name(&name.value),
            metrics: entry.metrics.unwrap_or(entry.models.is_none()),
            models,
            rpm: self.at_least_one("rpm", entry.rpm.as_ref()),
            max_concurrency: self.at_least_one("max_concurrency", entry.max_concurrency.as_ref()),
            spend: entry.spend.as_ref().map(|spend| self.check_amounts(spend)).unwrap_or_default(),
            key: self.key_source(&entry.api_key)?,
        })
    }
}
