//! The classes of failure: one closed list that retries, messages, exit codes and records all speak.
//!
//! Owns the names. What to *do* about a class (try again, go on, set aside) is `route::classify`'s to say.

/// What kind of failure it was. The words are those of `docs/errors.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorClass {
    /// No connection: refused, name not found, TLS.
    Connect,
    /// Dropped before the first delta.
    Reset,
    /// No first delta in time.
    Silent,
    /// The service failed: 500, 502, 520 to 523.
    Server,
    /// The service is too busy: 503, 529.
    Overloaded,
    /// A One-API or new-api gateway has no upstream for this model.
    NoChannel,
    /// A gateway gave up on its upstream: 408, 504, 524.
    GatewayTimeout,
    /// Too many requests.
    Rate,
    /// The account has no money or quota left.
    Quota,
    /// The key is refused.
    Auth,
    /// The key is good but may not do this.
    Forbidden,
    /// The service does not know the model.
    Model,
    /// Nothing is served at this address.
    Path,
    /// The prompt is longer than the model can read.
    Context,
    /// A content policy refused the prompt or the answer.
    Filter,
    /// The request is wrong in some other way.
    Request,
    /// 409 or 425: try again.
    Conflict,
    /// Sent elsewhere, where the prompt must not follow.
    Redirect,
    /// A 200 that holds no answer.
    Garbage,
    /// An error inside a 200, before the first delta.
    InStream,
    /// Ended without an end signal, after the first delta.
    Cut,
    /// A piece of the answer could not be read.
    Garbled,
    /// Our own limit of what may be spent.
    Spend,
    /// Our own limits (concurrency, rate, size) or a file of our own (a certificate, a key).
    Local,
}

impl ErrorClass {
    /// Every class, in the order of the documentation.
    pub const ALL: [Self; 24] = [
        Self::Connect,
        Self::Reset,
        Self::Silent,
        Self::Server,
        Self::Overloaded,
        Self::NoChannel,
        Self::GatewayTimeout,
        Self::Rate,
        Self::Quota,
        Self::Auth,
        Self::Forbidden,
        Self::Model,
        Self::Path,
        Self::Context,
        Self::Filter,
        Self::Request,
        Self::Conflict,
        Self::Redirect,
        Self::Garbage,
        Self::InStream,
        Self::Cut,
        Self::Garbled,
        Self::Spend,
        Self::Local,
    ];

    /// The class's name, as shown and recorded.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Silent => "silent",
            Self::Server => "server",
            Self::Overloaded => "overloaded",
            Self::NoChannel => "no-channel",
            Self::GatewayTimeout => "gateway-timeout",
            Self::Rate => "rate",
            Self::Quota => "quota",
            Self::Auth => "auth",
            Self::Forbidden => "forbidden",
            Self::Model => "model",
            Self::Path => "path",
            Self::Context => "context",
            Self::Filter => "filter",
            Self::Request => "request",
            Self::Conflict => "conflict",
            Self::Redirect => "redirect",
            Self::Garbage => "garbage",
            Self::InStream => "in-stream",
            Self::Cut => "cut",
            Self::Garbled => "garbled",
            Self::Spend => "spend",
            Self::Local => "local",
        }
    }

    /// How telling the class is when several candidates failed: the highest is the headline.
    /// The order is request, context, filter > auth > quota > rate > model, path > server > connect > silent > cut.
    #[must_use]
    pub fn weight(self) -> u8 {
        match self {
            Self::Request | Self::Context | Self::Filter => 9,
            Self::Auth | Self::Forbidden => 8,
            Self::Quota => 7,
            Self::Rate => 6,
            Self::Model | Self::Path | Self::NoChannel | Self::Redirect => 5,
            Self::Server
            | Self::Overloaded
            | Self::GatewayTimeout
            | Self::Conflict
            | Self::Garbage
            | Self::InStream => 4,
            Self::Connect | Self::Reset | Self::Spend | Self::Local => 3,
            Self::Silent => 2,
            Self::Cut | Self::Garbled => 1,
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
    fn names_are_unique_and_listed_once() {
        let names: std::collections::BTreeSet<_> = ErrorClass::ALL.iter().map(|class| class.as_str()).collect();
        assert_eq!(names.len(), ErrorClass::ALL.len());
    }

    #[test]
    fn a_wrong_key_outweighs_a_dead_server_and_a_bad_request_outweighs_both() {
        assert!(ErrorClass::Request.weight() > ErrorClass::Auth.weight());
        assert!(ErrorClass::Auth.weight() > ErrorClass::Connect.weight());
        assert!(ErrorClass::Connect.weight() > ErrorClass::Silent.weight());
    }
}
