//! What a person does to the live view with keys.
//!
//! Owns which lane they mean, what they look at and what they wish. Refuses to do it: a wish is for whoever runs the lanes.

/// A key, as far as the view knows any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A letter, a digit, a space.
    Char(char),
    /// Tab, or the arrow to the right.
    Next,
    /// The arrow to the left.
    Previous,
    /// Escape.
    Escape,
    /// Ctrl-C, where it does not come as a signal.
    Interrupt,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// This lane is stopped.
    Stop(usize),
    /// This lane is asked once more.
    Again(usize),
    /// The person has seen enough.
    Leave,
}

/// What the person looks at.
#[derive(Clone, Debug, Default)]
pub(super) struct Desk {
    pub(super) focus: usize,
    /// The focus was never moved: it is not shown.
    pub(super) untouched: bool,
    pub(super) zoomed: bool,
    pub(super) held: bool,
    pub(super) picked: Option<usize>,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self { untouched: true, ..Self::default() }
    }

    /// What `key` does among so many lanes; `over` tells of each whether it is over.
    pub(super) fn key(&mut self, key: Key, lanes: usize, over: impl Fn(usize) -> bool) -> Option<Wish> {
        match key {
            Key::Char(digit @ '1'..='9') => {
                let lane = digit as usize - '1' as usize;
                if lane < lanes {
                    self.look_at(lane);
                }
            }
            Key::Next => self.look_at((self.focus + 1) % lanes.max(1)),
            Key::Previous => self.look_at((self.focus + lanes.saturating_sub(1)) % lanes.max(1)),
            Key::Char('z') => {
                self.look_at(self.focus);
                self.zoomed = !self.zoomed;
            }
            Key::Escape => self.zoomed = false,
            Key::Char('p') => {
                self.look_at(self.focus);
                self.picked = if self.picked == Some(self.focus) { None } else { Some(self.focus) };
            }
            Key::Char(' ') => self.held = !self.held,
            Key::Char('x') => {
                self.look_at(self.focus);
                return (!over(self.focus)).then_some(Wish::Stop(self.focus));
            }
            Key::Char('r') => {
                self.look_at(self.focus);
                return Some(Wish::Again(self.focus));
            }
            Key::Char('q') | Key::Interrupt => return Some(Wish::Leave),
            Key::Char(_) => {}
        }
        None
    }

    fn look_at(&mut self, lane: usize) {
        self.focus = lane;
        self.untouched = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(keys: &str, lanes: usize) -> (Desk, Vec<Wish>) {
        let mut desk = Desk::new();
        let wishes = keys.chars().filter_map(|key| {
            let key = match key {
                '>' => Key::Next,
                '<' => Key::Previous,
                '!' => Key::Interrupt,
                key => Key::Char(key),
            };
            desk.key(key, lanes, |lane| lane == 0)
        });
        let wishes = wishes.collect();
        (desk, wishes)
    }

    #[test]
    fn keys_are_about_the_lane_that_is_looked_at() {
        assert_eq!(pressed("2x", 3).1, [Wish::Stop(1)]);
        assert_eq!(pressed("x", 3).1, [], "it is over");
        assert_eq!(pressed("r>r<<r", 3).1, [Wish::Again(0), Wish::Again(1), Wish::Again(2)]);
        assert_eq!(pressed("29r", 3).1, [Wish::Again(1)], "there is no ninth");
        assert_eq!(pressed(" q!", 3).1, [Wish::Leave, Wish::Leave]);
        let (desk, _) = pressed("3zp", 3);
        assert!(desk.zoomed && desk.focus == 2 && desk.picked == Some(2) && !desk.untouched);
        assert_eq!(pressed("2pp", 3).0.picked, None);
    }
}
