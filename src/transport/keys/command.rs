//! A program that prints a key.
//!
//! Owns running it, with a limit on its time and on what it prints. Refuses to show what it printed.

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

use super::{COMMAND_LIMIT, KeyError, LONGEST_KEY};
use crate::model::api_key::ApiKey;

/// How long its output is waited for once it has ended.
const AFTER_EXIT: Duration = Duration::from_millis(100);

/// A line for the system's shell.
#[cfg(unix)]
pub(crate) fn shell(line: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", line]);
    command
}

/// A line for the system's shell.
#[cfg(not(unix))]
pub(crate) fn shell(line: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("cmd");
    command.args(["/C", line]);
    command
}

/// Runs a command and takes the first line it prints, as password managers put the secret there.
pub(crate) async fn run(mut command: tokio::process::Command, program: &str) -> Result<ApiKey, KeyError> {
    let program = program.to_owned();
    let start = |error: std::io::Error| KeyError::Start { program: program.clone(), reason: error.to_string() };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(start)?;
    let (mut printed, mut said) = (Vec::new(), Vec::new());
    let ended = timeout(COMMAND_LIMIT, outcome(&mut child, &mut printed, &mut said)).await;
    let status = ended.map_err(|_| KeyError::Slow(program.clone()))?.map_err(start)?;
    let Some(status) = status else { return Err(KeyError::TooLong(format!("output of the key command `{program}`"))) };
    let printed = String::from_utf8_lossy(&printed);
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        let said = said.lines().rev().find(|line| !line.trim().is_empty());
        // A tool may echo the secret it failed with: one that was printed is masked.
        let printed = ApiKey::new(&printed);
        let said = said.map(|line| format!(": {}", printed.masked_in(&crate::model::sanitize::one_line(line))));
        return Err(KeyError::Failed { program, status: status.to_string(), said: said.unwrap_or_default() });
    }
    Ok(ApiKey::new(printed.lines().next().unwrap_or_default()))
}

/// How the command ended; `None` when it prints without end.
async fn outcome(child: &mut Child, printed: &mut Vec<u8>, said: &mut Vec<u8>) -> std::io::Result<Option<ExitStatus>> {
    let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let mut reading = pin!(async { tokio::join!(bounded(stdout, printed), bounded(stderr, said)).0 });
    tokio::select! {
        fits = &mut reading => if fits? { child.wait().await.map(Some) } else { Ok(None) },
        status = child.wait() => {
            // What it printed is in the pipe. A child of its own may hold that open for as long as it likes.
            let fits = timeout(AFTER_EXIT, reading).await.unwrap_or(Ok(true))?;
            status.map(|status| fits.then_some(status))
        }
    }
}

/// Reads to the end; false when there is more than any key.
async fn bounded(from: impl AsyncRead + Unpin, into: &mut Vec<u8>) -> std::io::Result<bool> {
    from.take(LONGEST_KEY as u64 + 1).read_to_end(into).await?;
    Ok(into.len() <= LONGEST_KEY)
}
