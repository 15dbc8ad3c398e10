//! What `[serve]` says, and whether it makes sense.

use super::Resolver;
use crate::config::{
    Client, Serve,
    error::Problem,
    file::{ClientEntry, ServeEntry},
    names::normalised,
    values::At,
};

const MEGABYTE: usize = 1024 * 1024;

impl Resolver {
    pub(super) fn serve(&mut self, entry: &ServeEntry) {
        let usual = Serve::default();
        let listen = entry.listen.as_ref().map(|listen| self.listen(listen));
        let most = self.at_least_one("max_body_mb", entry.max_body_mb.as_ref());
        let serve = Serve {
            listen: listen.unwrap_or(usual.listen),
            hold: entry.hold.map_or(usual.hold, |time| time.0),
            drain: entry.drain.map_or(usual.drain, |time| time.0),
            max_body: most.map_or(usual.max_body, |most| (most as usize).saturating_mul(MEGABYTE)),
            hosts: entry.hosts.iter().map(|host| self.host(host)).collect(),
            cors: entry.cors.iter().filter_map(|origin| self.origin(origin)).collect(),
            tls: self.tls(entry),
            clients: entry.keys.0.iter().filter_map(|(name, entry)| self.client(name, entry)).collect(),
        };
        self.config.serve = serve;
    }

    fn listen(&mut self, listen: &At<String>) -> String {
        let port =
            listen.value.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) {
            self.problem("listen is no address with a port", &listen.span).help =
                Some(format!("write it like \"127.0.0.1:{0}\", \"[::1]:{0}\" or \"0.0.0.0:{0}\"", Serve::PORT));
        }
        listen.value.clone()
    }

    /// A name as it stands in an address, without a port.
    fn host(&mut self, host: &At<String>) -> String {
        let name = host.value.to_ascii_lowercase();
        if name.is_empty() || name.contains([':', '/', '[', ' ']) {
            self.problem(format!("`{}` is no name of a host", host.value), &host.span).help =
                Some("write the name alone, without a port: \"models.local\"".into());
        }
        name
    }

    fn origin(&mut self, origin: &At<String>) -> Option<String> {
        let url = url::Url::parse(&origin.value).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(url) = url else {
            self.problem(format!("`{}` is no web page's origin", origin.value), &origin.span).help =
                Some("write it like \"https://chat.example.com\"".into());
            return None;
        };
        Some(url.origin().ascii_serialization())
    }

    fn tls(&mut self, entry: &ServeEntry) -> Option<(std::path::PathBuf, std::path::PathBuf)> {
        match (&entry.cert, &entry.key) {
            (Some(cert), Some(key)) => Some((self.path(&cert.value), self.path(&key.value))),
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                self.problem("`cert` and `key` need each other", &one.span).help =
                    Some("give both for https, or none".into());
                None
            }
        }
    }

    fn client(&mut self, name: &At<String>, entry: &ClientEntry) -> Option<Client> {
        let by = format!("[serve.keys.{}]", name.value);
        let models = entry.models.as_ref();
        if models.is_some_and(Vec::is_empty) {
            let problem = Problem::new(&self.source, format!("{by} may use no model"), name.span.clone());
            self.push(problem.help("leave `models` out if it may use all"));
        }
        let models = models.map(|models| models.iter().map(|model| self.askable(model, &by)).collect());
        Some(Client {
            name: normalised(&name.value),
            metrics: entry.metrics.unwrap_or(entry.models.is_none()),
            models,
            rpm: self.at_least_one("rpm", entry.rpm.as_ref()),
            max_concurrency: self.at_least_one("max_concurrency", entry.max_concurrency.as_ref()),
            spend: entry.spend.as_ref().map(|spend| self.amounts(spend)).unwrap_or_default(),
            key: self.key(&entry.api_key)?,
        })
    }
}
