//! Describes errors of the operating system, and counts, in messages.

use std::fmt::Display;

/// The text of `error` as the end of a message: without the number that Rust adds to errors of the operating system, which
/// the text repeats, and with a lowercase first letter, as in every other message.
pub fn describe_error(error: &dyn Display) -> String {
    let text = error.to_string();
    let Some((reason, number)) = text.rsplit_once(" (os error ") else { return text };
    let Some(rest) = number.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix(')') else { return text };
    let start = reason.rfind(": ").map_or(0, |colon| colon + 2);
    let (context, reason) = reason.split_at(start);
    let mut letters = reason.chars();
    let first = letters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
    format!("{context}{first}{}{rest}", letters.as_str())
}

/// How a process ended, as in `ended with exit code 1`.
pub fn describe_status(status: std::process::ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("signal {signal}");
    }
    status.code().map_or_else(|| "an unknown status".to_owned(), |code| format!("exit code {code}"))
}

/// `count` and a noun with a regular plural: `1 problem`, `2 problems`.
pub fn plural(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_errors_have_no_number_and_start_lowercase() {
        assert_eq!(describe_error(&"No such file or directory (os error 2)"), "no such file or directory");
        assert_eq!(describe_error(&"I/O error: Is a directory (os error 21)"), "I/O error: is a directory");
        assert_eq!(describe_error(&"Too large (os error x)"), "Too large (os error x)");
        assert_eq!(describe_error(&"TLS error"), "TLS error");
    }
}
