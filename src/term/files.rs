//! How many files and connections this process may have open.

/// Asks for as many as the system allows, and tells how many those are.
#[cfg(unix)]
#[must_use]
pub fn as_many_as_allowed() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limits = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limits.maximum, maximum: limits.maximum };
    // Where that is refused, it stays as it was.
    let current = if setrlimit(Resource::Nofile, wanted).is_ok() { limits.maximum } else { limits.current };
    current.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX)
}

/// Elsewhere than on Unix there is no such limit.
#[cfg(not(unix))]
#[must_use]
pub fn as_many_as_allowed() -> usize {
    usize::MAX
}
