//! Runs a command that prints an API key, with limits on its run time and output size.
//!
//! Error messages quote the last line of standard error with the key redacted. Standard output is never shown.

use std::{
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Child,
    time::timeout,
};

use super::{COMMAND_TIMEOUT, KeyError, MAX_KEY_BYTES};

use crate::model::{api_key::ApiKey, describe_error, key_mask::mask_key_shapes, sanitize::one_line};

/// How long to wait for the rest of the output after the command has exited.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// Builds a command that runs `line` in the system's shell.
#[cfg(unix)]
pub(crate) fn shell_command(line: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", line]);
    command
}

/// Builds a command that runs `line` in the system's shell.
#[cfg(not(unix))]
pub(crate) fn shell_command(line: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("cmd");
    command.args(["/C", line]);
    command
}

/// The words of a command that may be secrets: values of assignments and options, such as `VAULT_TOKEN=…` and `--token …`.
pub(super) fn secrets(words: &[String]) -> Vec<ApiKey> {
    let is_option = |word: &str| word.starts_with('-') && !word.contains('=');
    let after_option =
        words.windows(2).filter(|pair| is_option(&pair[0]) && !pair[1].starts_with('-')).map(|pair| &*pair[1]);
    let assigned = words.iter().filter_map(|word| word.split_once('=')).map(|(_, value)| value);
    after_option
        .chain(assigned)
        .map(|value| ApiKey::new(value.trim_matches(['"', '\'', ';', '&', '|', '(', ')'])))
        .collect()
}

/// Runs a command and returns the first line of its output, where password managers print the secret. `secrets`: words of
/// the command that its messages must not show.
pub(crate) async fn run(
    mut command: tokio::process::Command,
    program: &str,
    secrets: &[ApiKey],
) -> Result<ApiKey, KeyError> {
    let program = program.to_owned();
    let start_error =
        |error: std::io::Error| KeyError::CommandStart { program: program.clone(), reason: describe_error(&error) };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(start_error)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let result = timeout(COMMAND_TIMEOUT, wait_and_read(&mut child, &mut stdout, &mut stderr)).await;
    let status = result.map_err(|_| KeyError::CommandTimeout(program.clone()))?.map_err(start_error)?;
    let Some(status) = status else { return Err(KeyError::TooLarge(format!("output of key command \"{program}\""))) };
    let stdout = String::from_utf8_lossy(&stdout);
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        let last_line = stderr.lines().rev().find(|line| !line.trim().is_empty());
        // The command may repeat secrets in its error message.
        let output = ApiKey::new(&stdout);
        let quoted = last_line.map(|line| {
            let masked =
                [&output].into_iter().chain(secrets).fold(one_line(line), |line, secret| secret.redact_in(&line));
            format!(": {}", mask_key_shapes(&masked))
        });
        return Err(KeyError::CommandFailed {
            program,
            status: crate::model::describe_status(status),
            stderr: quoted.unwrap_or_default(),
        });
    }
    Ok(ApiKey::new(stdout.lines().next().unwrap_or_default()))
}

/// Waits for the command and reads its output; `None`: the output exceeds the limit.
async fn wait_and_read(
    child: &mut Child,
    stdout_bytes: &mut Vec<u8>,
    stderr_bytes: &mut Vec<u8>,
) -> std::io::Result<Option<ExitStatus>> {
    let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let mut reading =
        pin!(async { tokio::join!(read_bounded(stdout, stdout_bytes), read_bounded(stderr, stderr_bytes)).0 });
    tokio::select! {
        is_within_limit = &mut reading => if is_within_limit? { child.wait().await.map(Some) } else { Ok(None) },
        status = child.wait() => {
            // All output of the command is in the pipe now, but its child may keep the pipe open indefinitely.
            let is_within_limit = timeout(DRAIN_TIMEOUT, reading).await.unwrap_or(Ok(true))?;
            status.map(|status| is_within_limit.then_some(status))
        }
    }
}

/// Reads up to the size limit; returns whether that was all.
async fn read_bounded(reader: impl AsyncRead + Unpin, buffer: &mut Vec<u8>) -> std::io::Result<bool> {
    reader.take(MAX_KEY_BYTES as u64 + 1).read_to_end(buffer).await?;
    Ok(buffer.len() <= MAX_KEY_BYTES)
}
