//! The order in which a route's candidates are asked.
//!
//! Owns the strategies, the `sticky` modifier and how health changes the order: who is left alone comes last. Pure: what
//! is known of each candidate is passed in, and so is chance. Refuses to know who they are.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{backoff::drawn, health::Standing};

/// How a route chooses among its models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// In the order written down.
    #[default]
    Priority,
    /// By weight: in turns while the process lives, by chance in a process of one request.
    Weighted,
    /// Whoever has fewer requests under way, of two taken by chance. A process of one request asks in order.
    LeastBusy,
    /// Whoever began to answer sooner lately, of two taken by chance; one in twenty goes to anybody.
    Fastest,
    /// Whoever costs least for this request.
    Cheapest,
}

impl Strategy {
    /// Every strategy with its name.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("priority", Self::Priority),
        ("weighted", Self::Weighted),
        ("least-busy", Self::LeastBusy),
        ("fastest", Self::Fastest),
        ("cheapest", Self::Cheapest),
    ];

    /// Its name in the config.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES.into_iter().find(|(_, strategy)| *strategy == self).map_or("", |(name, _)| name)
    }
}

/// What is known of one candidate.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// How it stands.
    pub standing: Standing,
    /// Its share under `weighted`; 0: only when all others failed.
    pub weight: u32,
    /// Requests of this process under way.
    pub busy: usize,
    /// How soon it began to answer lately, in milliseconds.
    pub latency: Option<f64>,
    /// What this request costs, roughly, in whatever money the route's models are paid in.
    pub cost: Option<f64>,
    /// Who it is, for `sticky`.
    pub id: u64,
}

/// Where the turns of `weighted` stand, by candidate.
#[derive(Clone, Debug, Default)]
pub struct Wheel(HashMap<u64, i64>);

/// One request in so many goes to anybody, so that whoever was slow once is tried again.
const EXPLORE: f64 = 0.05;

/// How a choice is made.
#[expect(missing_debug_implementations, reason = "a source of chance has nothing to show")]
pub struct Choosing<'a> {
    /// By which rule.
    pub strategy: Strategy,
    /// Whom it is for: requests of one `sticky` key go to one candidate while it is well.
    pub sticky: Option<&'a str>,
    /// Where the turns stand; `None`: this process asks once.
    pub wheel: Option<&'a mut Wheel>,
    /// Numbers in 0..1.
    pub chance: &'a mut dyn FnMut() -> f64,
}

impl Choosing<'_> {
    /// The candidates in the order they are to be asked: first those that may be asked, as the strategy has it, then
    /// those that are left alone, the soonest first.
    #[must_use]
    pub fn order(mut self, seats: &[Seat]) -> Vec<usize> {
        let (free, mut aside): (Vec<usize>, Vec<usize>) =
            (0..seats.len()).partition(|&seat| !matches!(seats[seat].standing, Standing::Aside(..)));
        aside.sort_by_key(|&seat| match seats[seat].standing {
            Standing::Aside(until, _) => until,
            _ => jiff::Timestamp::MIN,
        });
        let mut order = if let Some(key) = self.sticky {
            sticky(&free, seats, key, self.strategy)
        } else {
            self.ranked(free, seats)
        };
        order.extend(aside);
        order
    }

    fn ranked(&mut self, free: Vec<usize>, seats: &[Seat]) -> Vec<usize> {
        match self.strategy {
            Strategy::Priority => free,
            Strategy::Weighted => match &mut self.wheel {
                Some(wheel) => in_turns(free, seats, wheel),
                None => by_weight(free, seats, self.chance),
            },
            Strategy::LeastBusy if self.wheel.is_none() => free,
            Strategy::LeastBusy => {
                #[expect(clippy::cast_precision_loss, reason = "requests under way are few")]
                let busy = |seat: usize| seats[seat].busy as f64;
                of_two(free, &busy, self.chance)
            }
            Strategy::Fastest => fastest(free, seats, self.chance),
            Strategy::Cheapest => {
                let mut order = free;
                let cost = |seat: usize| seats[seat].cost.unwrap_or(f64::INFINITY);
                order.sort_by(|&a, &b| cost(a).total_cmp(&cost(b)));
                order
            }
        }
    }
}

/// Smooth weighted round robin: over a cycle each gets exactly its share, spread as evenly as can be.
fn in_turns(mut free: Vec<usize>, seats: &[Seat], wheel: &mut Wheel) -> Vec<usize> {
    let mut all = 0;
    for &seat in &free {
        all += i64::from(seats[seat].weight);
        *wheel.0.entry(seats[seat].id).or_default() += i64::from(seats[seat].weight);
    }
    let turn = |seat: usize| wheel.0.get(&seats[seat].id).copied().unwrap_or_default();
    // Who has no share has no turn. A stable sort: of equals the first.
    free.sort_by_cached_key(|&seat| std::cmp::Reverse((seats[seat].weight > 0, turn(seat))));
    if let Some(&first) = free.first() {
        *wheel.0.entry(seats[first].id).or_default() -= all;
    }
    free
}

/// Drawn by weight, one after the other.
fn by_weight(mut left: Vec<usize>, seats: &[Seat], chance: &mut dyn FnMut() -> f64) -> Vec<usize> {
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let all: f64 = left.iter().map(|&seat| f64::from(seats[seat].weight)).sum();
        let mut drawn = chance() * all;
        let place = left.iter().position(|&seat| {
            drawn -= f64::from(seats[seat].weight);
            drawn < 0.0
        });
        order.push(left.remove(place.unwrap_or(0)));
    }
    order
}

/// The better of two taken by chance goes first; the others follow, the best first.
fn of_two(free: Vec<usize>, metric: &dyn Fn(usize) -> f64, chance: &mut dyn FnMut() -> f64) -> Vec<usize> {
    let first = match free.len() {
        0 | 1 => 0,
        count => {
            let one = drawn(count, chance());
            let other = (one + 1 + drawn(count - 1, chance())) % count;
            // Of equals, either: chance has chosen already.
            if metric(free[other]) < metric(free[one]) { other } else { one }
        }
    };
    led_by(free, first, metric)
}

fn led_by(mut free: Vec<usize>, first: usize, metric: &dyn Fn(usize) -> f64) -> Vec<usize> {
    if free.is_empty() {
        return free;
    }
    let first = free.remove(first);
    free.sort_by(|&a, &b| metric(a).total_cmp(&metric(b)));
    free.insert(0, first);
    free
}

fn fastest(free: Vec<usize>, seats: &[Seat], chance: &mut dyn FnMut() -> f64) -> Vec<usize> {
    let mut known: Vec<f64> = free.iter().filter_map(|&seat| seats[seat].latency).collect();
    known.sort_by(f64::total_cmp);
    // Who was never asked is taken for one in the middle.
    let median = known.get(known.len() / 2).copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "requests under way are few")]
    let metric = |seat: usize| seats[seat].latency.unwrap_or(median) * (seats[seat].busy as f64 + 1.0);
    if free.len() > 1 && chance() < EXPLORE {
        let first = drawn(free.len(), chance());
        return led_by(free, first, &metric);
    }
    of_two(free, &metric, chance)
}

/// Rendezvous hashing: the order depends on nothing but the key and who is there, so that one who leaves or comes back
/// moves nobody else's requests.
fn sticky(free: &[usize], seats: &[Seat], key: &str, strategy: Strategy) -> Vec<usize> {
    let score = |seat: usize| {
        let mut hasher = DefaultHasher::new();
        (key, seats[seat].id).hash(&mut hasher);
        #[expect(clippy::cast_precision_loss, reason = "a number in 0..1")]
        let drawn = ((hasher.finish() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let weight = if strategy == Strategy::Weighted { f64::from(seats[seat].weight) } else { 1.0 };
        -weight / drawn.ln()
    };
    let mut order = free.to_vec();
    order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, prop_assume, proptest};

    use super::*;
    use crate::routing::health::PlaceId;

    fn seat(id: u64) -> Seat {
        Seat { standing: Standing::Free, weight: 1, busy: 0, latency: None, cost: None, id }
    }

    fn order(strategy: Strategy, seats: &[Seat], mut chance: impl FnMut() -> f64) -> Vec<usize> {
        Choosing { strategy, sticky: None, wheel: None, chance: &mut chance }.order(seats)
    }

    fn aside(until: &str) -> Standing {
        let id = PlaceId::try_from("1".to_owned()).expect("a number");
        Standing::Aside(until.parse().expect("a date"), id)
    }

    #[test]
    fn who_is_left_alone_comes_last_and_nobody_is_lost() {
        let late = Seat { standing: aside("2026-01-01T00:00:09Z"), ..seat(0) };
        let soon = Seat { standing: aside("2026-01-01T00:00:01Z"), ..seat(1) };
        let seats = [late, seat(2), soon, Seat { standing: Standing::HalfOpen, ..seat(3) }];
        assert_eq!(order(Strategy::Priority, &seats, || 0.0), [1, 3, 2, 0]);
    }

    #[test]
    fn the_cheapest_comes_first_and_an_unknown_price_last() {
        let costs = [Some(3.0), None, Some(1.0), Some(2.0)];
        let seats: Vec<Seat> = costs.iter().map(|&cost| Seat { cost, ..seat(0) }).collect();
        assert_eq!(order(Strategy::Cheapest, &seats, || 0.0), [2, 3, 0, 1]);
    }

    #[test]
    fn the_fastest_of_two_comes_first_and_now_and_then_anybody() {
        let times = [Some(300.0), Some(100.0), None];
        let seats: Vec<Seat> = times.iter().map(|&latency| Seat { latency, ..seat(0) }).collect();
        let mut random = fastrand::Rng::with_seed(7);
        let mut first = [0; 3];
        for _ in 0..3000 {
            first[order(Strategy::Fastest, &seats, || random.f64())[0]] += 1;
        }
        assert!(first[1] > 1900 && first[0] > 20 && first[0] + first[2] > 900, "{first:?}");
    }

    #[test]
    fn the_least_busy_of_two_comes_first_while_the_process_lives() {
        let seats: Vec<Seat> = [5, 0].map(|busy| Seat { busy, ..seat(busy as u64) }).to_vec();
        let mut wheel = Wheel::default();
        let choosing =
            Choosing { strategy: Strategy::LeastBusy, sticky: None, wheel: Some(&mut wheel), chance: &mut || 0.3 };
        assert_eq!(choosing.order(&seats), [1, 0]);
        assert_eq!(order(Strategy::LeastBusy, &seats, || 0.3), [0, 1]);
    }

    #[test]
    fn one_key_goes_to_one_candidate_and_who_leaves_moves_nobody_else() {
        let seats: Vec<Seat> = (0..5).map(seat).collect();
        let choose = |seats: &[Seat], key: &str| {
            let mut chance = || 0.5;
            let choosing =
                Choosing { strategy: Strategy::Priority, sticky: Some(key), wheel: None, chance: &mut chance };
            choosing.order(seats)[0]
        };
        let mut without = seats.clone();
        without[2].standing = aside("2026-01-01T00:00:09Z");
        let mut shares = [0; 5];
        for number in 0..1000 {
            let key = format!("user {number}");
            let chosen = choose(&seats, &key);
            shares[chosen] += 1;
            assert_eq!(choose(&seats, &key), chosen);
            assert!(chosen == 2 || choose(&without, &key) == chosen);
        }
        assert!(shares.iter().all(|&share| share > 140), "{shares:?}");
    }

    proptest! {
        #[test]
        fn weights_are_exact_over_a_cycle(weights in proptest::collection::vec(0u32..9, 1..7), cycles in 1usize..4) {
            prop_assume!(weights.iter().any(|&weight| weight > 0));
            let seats: Vec<Seat> =
                weights.iter().zip(0..).map(|(&weight, id)| Seat { weight, ..seat(id) }).collect();
            let all: u32 = weights.iter().sum();
            let (mut wheel, mut served) = (Wheel::default(), vec![0; seats.len()]);
            for _ in 0..all as usize * cycles {
                let choosing = Choosing {
                    strategy: Strategy::Weighted, sticky: None, wheel: Some(&mut wheel), chance: &mut || 0.0,
                };
                served[choosing.order(&seats)[0]] += 1;
            }
            let want: Vec<usize> = weights.iter().map(|&weight| weight as usize * cycles).collect();
            prop_assert_eq!(served, want);
        }

        #[test]
        fn every_order_has_everybody_once(
            weights in proptest::collection::vec(0u32..4, 1..9), strategy in 0usize..5, seed in any::<u64>(), resident in any::<bool>()
        ) {
            let seats: Vec<Seat> =
                weights.iter().zip(0..).map(|(&weight, id)| Seat { weight, ..seat(id) }).collect();
            let (mut random, mut wheel) = (fastrand::Rng::with_seed(seed), Wheel::default());
            let mut chance = || random.f64();
            let choosing = Choosing {
                strategy: Strategy::NAMES[strategy].1, sticky: None,
                wheel: resident.then_some(&mut wheel), chance: &mut chance,
            };
            let mut order = choosing.order(&seats);
            let zero_first = seats[order[0]].weight == 0 && weights.iter().any(|&weight| weight > 0);
            prop_assert!(!(zero_first && strategy == 1), "no weight, and first");
            order.sort_unstable();
            prop_assert_eq!(order, (0..seats.len()).collect::<Vec<_>>());
        }
    }
}
