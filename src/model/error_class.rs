//! Error classes, shared by retries, messages, exit codes and records.
//!
//! `routing::decision` decides what a class means for retry and failover, `routing::cooldown` what it means for health.

/// Class of an error. The names are documented in `docs/errors.md`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    strum::IntoStaticStr,
    strum::EnumString,
    strum::VariantArray,
)]
#[strum(serialize_all = "kebab-case")]
pub enum ErrorClass {
    /// Connection failed: refused, name resolution, TLS.
    Connect,
    /// Connection dropped before the first delta.
    Reset,
    /// No first delta within the timeout.
    Timeout,
    /// Server error: 500, 502, 520 to 523.
    Server,
    /// Service overloaded: 503, 529.
    Overloaded,
    /// A One-API or new-api gateway has no upstream for this model.
    NoChannel,
    /// The upstream of a gateway timed out: 408, 504, 524.
    GatewayTimeout,
    /// Rate limit exceeded.
    Rate,
    /// Account balance or quota exhausted.
    Quota,
    /// API key rejected.
    Auth,
    /// The API key is valid but not permitted to do this.
    Forbidden,
    /// 403 without a reason, such as the page of a firewall.
    Blocked,
    /// Model unknown to the service.
    Model,
    /// No API at this URL.
    Path,
    /// The prompt exceeds the context window of the model.
    Context,
    /// The request has more bytes than the service accepts.
    TooLarge,
    /// Prompt or answer rejected by a content policy.
    Filter,
    /// Request invalid for any other reason.
    Request,
    /// 409 or 425; can be retried.
    Conflict,
    /// Redirected to another server, to which the prompt must not be sent.
    Redirect,
    /// A 200 response without an answer in it.
    InvalidResponse,
    /// An error inside a 200 response, before the first delta.
    InStream,
    /// The answer ended without an end signal after the first delta.
    Incomplete,
    /// A chunk of the answer could not be parsed.
    InvalidChunk,
    /// Local spend limit reached.
    Spend,
    /// A limit of this machine (`max_concurrency`, `rpm`), an unusable local file or setting, or a request that mmchat
    /// itself canceled: stopped by the user, or slower than its hedge request.
    LocalLimit,
}

impl ErrorClass {
    /// All classes, in the order of the documentation.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Name, as shown and recorded.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The class that was called `name` before version 0.1.0 and has another name now.
    #[must_use]
    pub fn from_old_name(name: &str) -> Option<Self> {
        match name {
            "silent" => Some(Self::Timeout),
            "garbage" => Some(Self::InvalidResponse),
            "cut" => Some(Self::Incomplete),
            "garbled" => Some(Self::InvalidChunk),
            "local" => Some(Self::LocalLimit),
            _ => None,
        }
    }

    /// Reporting priority: when several candidates failed, the error with the highest value is reported. After the
    /// request's own errors come those that end soonest: a client that retries is told of them, not of a backup whose
    /// key is wrong.
    #[must_use]
    pub fn priority(self) -> u8 {
        match self {
            Self::Request => 9,
            Self::Rate => 8,
            Self::Overloaded => 7,
            Self::Server
            | Self::GatewayTimeout
            | Self::Conflict
            | Self::Connect
            | Self::Reset
            | Self::Timeout
            | Self::InvalidResponse
            | Self::InStream => 6,
            Self::Context | Self::TooLarge | Self::Filter => 5,
            Self::Incomplete | Self::InvalidChunk | Self::LocalLimit => 4,
            Self::NoChannel | Self::Blocked | Self::Model | Self::Path | Self::Redirect => 3,
            Self::Quota | Self::Forbidden | Self::Auth => 2,
            Self::Spend => 1,
        }
    }
}

impl std::fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kebab_case() {
        let names: Vec<_> = ErrorClass::ALL.iter().map(|class| class.as_str()).collect();
        assert_eq!(names[..3], ["connect", "reset", "timeout"]);
        assert_eq!(
            names[20..],
            ["invalid-response", "in-stream", "incomplete", "invalid-chunk", "spend", "local-limit"]
        );
        for name in names {
            assert!(ErrorClass::from_old_name(name).is_none(), "{name}");
        }
    }

    #[test]
    fn recoverable_errors_outrank_permanent_ones() {
        use ErrorClass as C;
        let ranked = [C::Request, C::Rate, C::Overloaded, C::Server, C::Context, C::LocalLimit, C::Model, C::Auth];
        assert!(ranked.windows(2).all(|pair| pair[0].priority() > pair[1].priority()));
    }
}
