//! Handles the keys of the live view: focus, zoom, hold and pick.
//!
//! Returns actions on calls instead of performing them.

/// A key that the live view handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A letter, a digit or a space.
    Char(char),
    /// Tab or right arrow.
    Next,
    /// Left arrow.
    Previous,
    /// Escape.
    Escape,
    /// Ctrl-C, if it does not arrive as a signal.
    Interrupt,
}

/// An action for the caller to perform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Stop this call.
    Stop(usize),
    /// Restart this call.
    Restart(usize),
    /// Leave the comparison.
    Leave,
}

/// The state of the live view that keys change.
#[derive(Clone, Debug, Default)]
pub(super) struct LiveInput {
    pub(super) focus: usize,
    /// The focus was never moved, so it is not shown.
    pub(super) is_untouched: bool,
    pub(super) is_zoomed: bool,
    pub(super) is_held: bool,
    pub(super) picked: Option<usize>,
}

impl LiveInput {
    pub(super) fn new() -> Self {
        Self { is_untouched: true, ..Self::default() }
    }

    /// Handles `key`, with `count` calls. `has_ended` reports whether a call has ended.
    pub(super) fn on_key(&mut self, key: Key, count: usize, has_ended: impl Fn(usize) -> bool) -> Option<Action> {
        match key {
            Key::Char(digit @ '1'..='9') => {
                let index = digit as usize - '1' as usize;
                if index < count {
                    self.set_focus(index);
                }
            }
            Key::Next => self.set_focus((self.focus + 1) % count.max(1)),
            Key::Previous => self.set_focus((self.focus + count.saturating_sub(1)) % count.max(1)),
            Key::Char('z') => {
                self.set_focus(self.focus);
                self.is_zoomed = !self.is_zoomed;
            }
            Key::Escape => self.is_zoomed = false,
            Key::Char('p') => {
                self.set_focus(self.focus);
                self.picked = if self.picked == Some(self.focus) { None } else { Some(self.focus) };
            }
            Key::Char(' ') => self.is_held = !self.is_held,
            Key::Char('x') => {
                self.set_focus(self.focus);
                return (!has_ended(self.focus)).then_some(Action::Stop(self.focus));
            }
            Key::Char('r') => {
                self.set_focus(self.focus);
                return Some(Action::Restart(self.focus));
            }
            Key::Char('q') | Key::Interrupt => return Some(Action::Leave),
            Key::Char(_) => {}
        }
        None
    }

    fn set_focus(&mut self, index: usize) {
        self.focus = index;
        self.is_untouched = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(keys: &str, count: usize) -> (LiveInput, Vec<Action>) {
        let mut input = LiveInput::new();
        let actions = keys.chars().filter_map(|key| {
            let key = match key {
                '>' => Key::Next,
                '<' => Key::Previous,
                '!' => Key::Interrupt,
                key => Key::Char(key),
            };
            input.on_key(key, count, |index| index == 0)
        });
        let actions = actions.collect();
        (input, actions)
    }

    #[test]
    fn keys_apply_to_the_focused_call() {
        assert_eq!(pressed("2x", 3).1, [Action::Stop(1)]);
        assert_eq!(pressed("x", 3).1, [], "the call has ended");
        assert_eq!(pressed("r>r<<r", 3).1, [Action::Restart(0), Action::Restart(1), Action::Restart(2)]);
        assert_eq!(pressed("29r", 3).1, [Action::Restart(1)], "there is no ninth call");
        assert_eq!(pressed(" q!", 3).1, [Action::Leave, Action::Leave]);
        let (input, _) = pressed("3zp", 3);
        assert!(input.is_zoomed && input.focus == 2 && input.picked == Some(2) && !input.is_untouched);
        assert_eq!(pressed("2pp", 3).0.picked, None);
    }
}
