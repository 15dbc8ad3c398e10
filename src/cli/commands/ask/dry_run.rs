//! `--dry-run`: the request as a `curl` command, with variables in the place of secrets.

use crate::{
    cli::{CliError, support::exit::Exit},
    engine::plan::Lane,
    model::{
        api_key::{ApiKey, KeySource, masked_url},
        sanitize::one_line,
        target::Target,
    },
    protocol::protocol,
    render::Output,
    term::output::{Streams, say},
};

/// Prints the request of the first candidate; the others are named.
pub(super) fn print(lane: &Lane, mut streams: Streams) -> Result<Exit, CliError> {
    let mut targets = lane.candidates.iter();
    let first = targets.next().expect("a lane has candidates");
    let out = curl(first, lane)?;
    streams.put(&mut Output::data(out))?;
    streams.close(true)?;
    let others: Vec<_> = targets.map(|target| target.id.to_string()).collect();
    if !others.is_empty() {
        say(&format!("then, if {} fails: {}\n", first.id, others.join(", ")));
    }
    Ok(Exit::Ok)
}

fn curl(target: &Target, lane: &Lane) -> Result<String, CliError> {
    let protocol = protocol(target.endpoint.protocol).expect("resolved configs name known protocols");
    // A placeholder stands where the key goes, so that no key is even read.
    let placeholder = target.endpoint.keys.first().map(|_| ApiKey::new("KEY"));
    let request = protocol
        .encode(target, placeholder.as_ref(), &lane.call)
        .map_err(|error| CliError::Usage { message: error.to_string(), hint: None })?;
    let mut lines = vec![format!("curl -N {}", quoted(&masked_url(&target.endpoint.url("chat/completions"))))];
    if let Some(proxy) = &target.endpoint.connect.proxy {
        lines.push(format!("-x {}", quoted(&masked_url(proxy))));
    }
    if let Some(file) = &target.endpoint.connect.ca_file {
        lines.push(format!("--cacert {}", quoted(&file.display().to_string())));
    }
    // The endpoint's own headers take the place of ours.
    let ours = |name: &&http::HeaderName| !target.endpoint.headers.iter().any(|(own, _)| own == *name);
    for name in request.headers().keys().filter(ours) {
        let value = &request.headers()[name];
        let value = value.to_str().unwrap_or_default();
        let key = target.endpoint.keys.first().filter(|_| name == http::header::AUTHORIZATION);
        lines.push(match key {
            Some(source) => format!("-H \"{name}: Bearer {}\"", variable(source, "API_KEY")),
            None => format!("-H {}", quoted(&format!("{name}: {value}"))),
        });
    }
    for (name, source) in &target.endpoint.headers {
        let fallback = name.as_str().to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        lines.push(format!("-H \"{name}: {}\"", variable(source, &fallback)));
    }
    lines.push(format!("--data-raw {}", quoted(&String::from_utf8_lossy(request.body()))));
    Ok(format!("{}\n", lines.join(" \\\n  ")))
}

/// The shell variable that holds a secret; one of our choosing where it comes from elsewhere.
fn variable(source: &KeySource, fallback: &str) -> String {
    match source {
        KeySource::Env(name) => format!("${name}"),
        other => {
            say(&format!("${fallback} stands for the {}\n", one_line(&other.to_string())));
            format!("${fallback}")
        }
    }
}

/// In single quotes, as every POSIX shell reads them.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_safe_in_a_shell() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
