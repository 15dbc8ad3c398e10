//! `--dry-run`: prints the request as a `curl` command, with shell variables in place of secrets.

use crate::{
    cli::{
        CliError,
        support::{exit::Exit, shell_word::shell_quote},
    },
    config::without_secrets,
    engine::plan::Call,
    model::{
        ModelRequest, Params,
        api_key::{ApiKey, KeySource, redact_url},
        sanitize::one_line,
        target::Target,
    },
    protocol::protocol_of,
    render::Output,
    term::output::{Streams, write_stderr},
};

/// Prints the request to the first candidate, and the names of the other candidates.
pub(super) fn print(call: &Call, mut streams: Streams) -> Result<Exit, CliError> {
    let mut targets = call.candidates.iter();
    let first = targets.next().expect("a call has at least one candidate");
    streams.write(&mut Output::data(curl_command(first, call)?))?;
    streams.finish(true)?;
    let others: Vec<_> = targets.map(|target| target.id.to_string()).collect();
    if !others.is_empty() {
        write_stderr(&format!("failover candidates after {}: {}\n", first.id, others.join(", ")));
    }
    Ok(Exit::Ok)
}

fn curl_command(target: &Target, call: &Call) -> Result<String, CliError> {
    let protocol = protocol_of(&target.endpoint);
    // With a placeholder, no key is read.
    let placeholder = target.endpoint.keys.first().map(|_| ApiKey::new("KEY"));
    let mut request = ModelRequest::clone(&call.request);
    request.add_workarounds(target.workarounds.iter().cloned());
    let params = Params { extra: without_secrets(&target.params.extra), ..target.params.clone() };
    let masked = Target { params, ..target.clone() };
    let request = protocol
        .encode(&masked, placeholder.as_ref(), &request)
        .map_err(|error| CliError::Usage { message: error.to_string(), hint: None })?;
    let mut lines = vec![format!("curl -N {}", shell_quote(&redact_url(&target.endpoint.url("chat/completions"))))];
    if let Some(proxy) = &target.endpoint.connect.proxy {
        lines.push(format!("-x {}", shell_quote(&redact_url(proxy))));
    }
    if let Some(file) = &target.endpoint.connect.ca_file {
        lines.push(format!("--cacert {}", shell_quote(&file.display().to_string())));
    }
    // Headers configured for the endpoint replace generated ones.
    let is_generated =
        |name: &&http::HeaderName| !target.endpoint.headers.iter().any(|(configured, _)| configured == *name);
    for name in request.headers().keys().filter(is_generated) {
        let value = &request.headers()[name];
        let value = value.to_str().unwrap_or_default();
        let key = target.endpoint.keys.first().filter(|_| name == http::header::AUTHORIZATION);
        lines.push(match key {
            Some(source) => format!("-H \"{name}: Bearer {}\"", shell_variable(source, "API_KEY")),
            None => format!("-H {}", shell_quote(&format!("{name}: {value}"))),
        });
    }
    for (name, source) in &target.endpoint.headers {
        let fallback = name.as_str().to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        lines.push(format!("-H \"{name}: {}\"", shell_variable(source, &fallback)));
    }
    lines.push(format!("--data-raw {}", shell_quote(&String::from_utf8_lossy(request.body()))));
    Ok(format!("{}\n", lines.join(" \\\n  ")))
}

/// The shell variable for a secret: the environment variable of its source, else `fallback` with a note on stderr.
fn shell_variable(source: &KeySource, fallback: &str) -> String {
    match source {
        KeySource::Env(name) if source.pasted_key().is_none() => format!("${name}"),
        other => {
            let part = match other {
                KeySource::File(_) => "content of ",
                KeySource::Command(_) | KeySource::Shell(_) => "output of ",
                KeySource::Env(_) | KeySource::Literal(_) | KeySource::Keyring(_) => "",
            };
            write_stderr(&format!("${fallback} stands for the {part}{}\n", one_line(&other.to_string())));
            format!("${fallback}")
        }
    }
}
