//! Whether requests are sent to a candidate, and what restricts them.
//!
//! A *soft* restriction ends by itself within a minute: the candidate is tried when no other is available. A *hard* one
//! lasts until someone changes something: the candidate is tried only if the request has no other at all.

use jiff::Timestamp;

use super::HealthKey;
use crate::routing::cooldown::CooldownKind;

/// The availability of a candidate: the state of its breakers, cooldowns and probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Requests are sent.
    Available,
    /// One request is sent, as the probe of a half-open breaker.
    HalfOpen,
    /// Requests are sent only if no other candidate is available.
    Restricted(Restriction),
}

/// Why a candidate is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restriction {
    /// What restricts it.
    pub kind: RestrictionKind,
    /// When requests are sent again.
    pub until: Timestamp,
    /// The time that the service has named for the next request.
    pub named: Option<Timestamp>,
    /// The health entry with the restriction.
    pub cause: HealthKey,
}

/// What restricts a candidate, the least strict first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RestrictionKind {
    /// Several requests have waited too long for their first delta.
    Stalled,
    /// Another request is the probe of the half-open breaker.
    Probing,
    /// The circuit breaker is open.
    Open,
    /// A cooldown.
    Cooldown(CooldownKind),
}

impl RestrictionKind {
    /// Whether it lasts until someone changes something.
    #[must_use]
    pub fn is_hard(self) -> bool {
        self == Self::Cooldown(CooldownKind::Hard)
    }
}

impl Availability {
    /// The restriction, if there is one.
    #[must_use]
    pub fn restriction(self) -> Option<Restriction> {
        match self {
            Self::Restricted(restriction) => Some(restriction),
            Self::Available | Self::HalfOpen => None,
        }
    }

    /// When requests are sent again, if they are restricted.
    #[must_use]
    pub fn until(self) -> Option<Timestamp> {
        self.restriction().map(|restriction| restriction.until)
    }

    /// The time that the service has named for the next request, if it has.
    #[must_use]
    pub fn retry_after(self) -> Option<Timestamp> {
        self.restriction()?.named
    }

    /// The availability of something that needs both, such as an endpoint and its model.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Available, rest) | (rest, Self::Available) => rest,
            (Self::HalfOpen, rest) | (rest, Self::HalfOpen) => rest,
            (Self::Restricted(a), Self::Restricted(b)) => {
                let stricter = if (b.kind, b.until) > (a.kind, a.until) { b } else { a };
                // The end of a soft restriction does not matter while there is a hard one.
                if stricter.kind.is_hard() {
                    return Self::Restricted(stricter);
                }
                Self::Restricted(Restriction { until: a.until.max(b.until), named: a.named.max(b.named), ..stricter })
            }
        }
    }

    /// The order in which candidates or keys are tried: available, half-open, soft by the end of the restriction, hard.
    #[must_use]
    pub fn rank(self) -> (u8, Timestamp) {
        match self {
            Self::Available => (0, Timestamp::MIN),
            Self::HalfOpen => (1, Timestamp::MIN),
            Self::Restricted(restriction) => (2 + u8::from(restriction.kind.is_hard()), restriction.until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restricted(kind: RestrictionKind, second: i64) -> Availability {
        let until = Timestamp::from_second(second).expect("valid timestamp");
        let cause = HealthKey::try_from(format!("{second:x}")).expect("valid key");
        let named = (kind == RestrictionKind::Cooldown(CooldownKind::RetryAfter)).then_some(until);
        Availability::Restricted(Restriction { kind, until, named, cause })
    }

    #[test]
    fn stricter_restriction_wins_and_both_must_end() {
        let (open, wait) = (RestrictionKind::Open, RestrictionKind::Cooldown(CooldownKind::RetryAfter));
        let both = restricted(open, 9).and(restricted(wait, 3)).restriction().expect("restricted");
        assert_eq!((both.kind, both.until.as_second()), (wait, 9));
        assert_eq!(both.named.map(Timestamp::as_second), Some(3), "nothing waits for a breaker");
        let hard = RestrictionKind::Cooldown(CooldownKind::Hard);
        assert_eq!(restricted(open, 99).and(restricted(hard, 5)), restricted(hard, 5));
        assert_eq!(Availability::HalfOpen.and(restricted(open, 1)), restricted(open, 1));
        assert_eq!(Availability::Available.and(Availability::HalfOpen), Availability::HalfOpen);
    }

    #[test]
    fn soft_restrictions_rank_before_hard_ones_and_by_their_end() {
        let hard = restricted(RestrictionKind::Cooldown(CooldownKind::Hard), 1);
        let (soon, late) = (restricted(RestrictionKind::Open, 2), restricted(RestrictionKind::Stalled, 3));
        let mut ranked = [hard, late, Availability::HalfOpen, soon, Availability::Available];
        ranked.sort_by_key(|availability| availability.rank());
        assert_eq!(ranked, [Availability::Available, Availability::HalfOpen, soon, late, hard]);
    }
}
