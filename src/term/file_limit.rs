//! Raises the limit of open files and connections of this process.

/// Raises the limit of open files to its maximum and returns the resulting limit.
#[cfg(unix)]
#[must_use]
pub(crate) fn raise_open_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    // If raising fails, the current limit stays in force.
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limits.maximum } else { limits.current };
    current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// There is no such limit on other platforms.
#[cfg(not(unix))]
#[must_use]
pub(crate) fn raise_open_file_limit() -> usize {
    usize::MAX
}
