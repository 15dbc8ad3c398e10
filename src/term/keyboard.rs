//! Keys while answers come: read one by one, without an echo, on a thread that ends when nobody listens any more.
//!
//! Owns the terminal's mode for as long as keys are listened to, and that it is as before when the process ends or stops.
//! Signals stay what they are: Ctrl-C and Ctrl-Z are no keys. A process in the background neither reads nor changes the
//! terminal: the system would stop it. Refuses to know what a key means.

use crate::render::compare::Key;

pub use system::{Keyboard, Modes};

/// The keys in what was read at once.
#[cfg_attr(not(unix), expect(dead_code, reason = "there keys come as events"))]
fn keys_of(bytes: &[u8]) -> Vec<Key> {
    let (mut keys, mut rest) = (Vec::new(), bytes);
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'\t' => keys.push(Key::Next),
            0x03 => keys.push(Key::Interrupt),
            b' '..=b'~' => keys.push(Key::Char(char::from(*first))),
            0x1b => match after {
                // A sequence: its letters are no keys of their own.
                [b'[' | b'O', sequence @ ..] => {
                    let end = sequence.iter().position(|byte| (b'@'..=b'~').contains(byte));
                    match end.map(|end| sequence[end]) {
                        Some(b'C') => keys.push(Key::Next),
                        Some(b'D' | b'Z') => keys.push(Key::Previous),
                        _ => {}
                    }
                    rest = &sequence[end.map_or(sequence.len(), |end| end + 1)..];
                }
                _ => keys.push(Key::Escape),
            },
            _ => {}
        }
    }
    keys
}

#[cfg(unix)]
mod system {
    use std::{
        io,
        os::unix::net::UnixStream,
        thread::{self, JoinHandle},
    };

    use rustix::{
        event::{PollFd, PollFlags, poll},
        io::Errno,
        termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr},
    };
    use tokio::sync::mpsc;

    use super::{Key, keys_of};

    /// The terminal's modes: as they were, and for reading keys.
    #[derive(Clone, Debug)]
    pub struct Modes {
        before: Termios,
    }

    impl Modes {
        /// As they are now; `None`: standard input is no terminal, or not ours.
        #[must_use]
        pub fn save() -> Option<Self> {
            tcgetattr(io::stdin()).ok().filter(|_| is_ours()).map(|before| Self { before })
        }

        /// For reading keys: as they come, unseen, and without waiting.
        pub fn enter(&self) {
            let mut modes = self.before.clone();
            modes.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO);
            modes.special_codes[SpecialCodeIndex::VMIN] = 0;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
            Self::set(&modes);
        }

        /// As they were. When that fails there is nobody left to tell.
        pub fn leave(&self) {
            Self::set(&self.before);
        }

        fn set(modes: &Termios) {
            if is_ours() {
                let _ = tcsetattr(io::stdin(), OptionalActions::Now, modes);
            }
        }
    }

    /// Whether this process is the one that the terminal listens to. One that it does not control may do as it likes.
    fn is_ours() -> bool {
        match tcgetpgrp(io::stdin()) {
            Ok(group) => group == rustix::process::getpgrp(),
            Err(error) => error == Errno::NOTTY,
        }
    }

    /// Keys, as long as it is held.
    #[derive(Debug)]
    pub struct Keyboard {
        keys: mpsc::Receiver<Key>,
        modes: Modes,
        /// Its end is that of the thread.
        over: Option<UnixStream>,
        thread: Option<JoinHandle<()>>,
    }

    impl Keyboard {
        /// Listens from now on. `None`: the system has no more to listen with.
        #[must_use]
        pub fn listen(modes: Modes) -> Option<Self> {
            let (over, heard) = UnixStream::pair().ok()?;
            let (sender, keys) = mpsc::channel(16);
            let thread = thread::Builder::new().spawn(move || listen(&heard, &sender)).ok()?;
            modes.enter();
            Some(Self { keys, modes, over: Some(over), thread: Some(thread) })
        }

        /// The next key; never, once the terminal is gone.
        pub async fn pressed(&mut self) -> Key {
            match self.keys.recv().await {
                Some(key) => key,
                None => std::future::pending().await,
            }
        }
    }

    /// Reads keys until `over` ends: whoever reads next gets every key that is pressed after that.
    fn listen(over: &UnixStream, keys: &mpsc::Sender<Key>) {
        let stdin = io::stdin();
        loop {
            let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(over, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            let (input, ended) = (fds[0].revents(), fds[1].revents());
            // A terminal that has hung up would be ready for ever.
            if !ended.is_empty() || input.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
                return;
            }
            let mut bytes = [0; 64];
            if !input.is_empty() && is_ours() {
                let read = match rustix::io::read(&stdin, &mut bytes) {
                    Ok(read) => read,
                    Err(Errno::INTR | Errno::AGAIN) => 0,
                    Err(_) => return,
                };
                for key in keys_of(&bytes[..read]) {
                    // When so many wait, nobody takes them.
                    let _ = keys.try_send(key);
                }
            } else if !input.is_empty() {
                // What is typed is for whoever is in front; ours again is told by nobody, so the next run listens anew.
                return;
            }
        }
    }

    impl Drop for Keyboard {
        fn drop(&mut self) {
            self.over.take();
            if let Some(thread) = self.thread.take() {
                // It reads, and no code of it panics.
                let _ = thread.join();
            }
            self.modes.leave();
        }
    }
}

#[cfg(not(unix))]
mod system {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
        time::Duration,
    };

    use crossterm::{
        event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read},
        terminal::{disable_raw_mode, enable_raw_mode},
    };
    use tokio::sync::mpsc;

    use super::Key;

    /// How long a keyboard that is not held any more may go on listening.
    const LOOK: Duration = Duration::from_millis(50);

    /// The terminal's modes, which the system's library remembers.
    #[derive(Clone, Debug)]
    pub struct Modes;

    impl Modes {
        /// `None`: standard input is no terminal.
        #[must_use]
        pub fn save() -> Option<Self> {
            crate::term::input::is_terminal().then_some(Self)
        }

        /// For reading keys.
        pub fn enter(&self) {
            let _ = enable_raw_mode();
        }

        /// As they were. When that fails there is nobody left to tell.
        pub fn leave(&self) {
            let _ = disable_raw_mode();
        }
    }

    /// Keys, as long as it is held.
    #[derive(Debug)]
    pub struct Keyboard {
        modes: Modes,
        keys: mpsc::Receiver<Key>,
        over: Arc<AtomicBool>,
    }

    impl Keyboard {
        /// Listens from now on.
        #[must_use]
        pub fn listen(modes: Modes) -> Option<Self> {
            modes.enter();
            let (sender, keys) = mpsc::channel(16);
            let over = Arc::new(AtomicBool::new(false));
            let heard = Arc::clone(&over);
            thread::spawn(move || {
                while !heard.load(Ordering::Relaxed) {
                    if let Ok(true) = poll(LOOK)
                        && let Ok(Event::Key(event)) = read()
                        && event.kind == KeyEventKind::Press
                        && let Some(key) = key(event.code, event.modifiers)
                        && sender.blocking_send(key).is_err()
                    {
                        return;
                    }
                }
            });
            Some(Self { modes, keys, over })
        }

        /// The next key; never, once the terminal is gone.
        pub async fn pressed(&mut self) -> Key {
            match self.keys.recv().await {
                Some(key) => key,
                None => std::future::pending().await,
            }
        }
    }

    impl Drop for Keyboard {
        fn drop(&mut self) {
            self.over.store(true, Ordering::Relaxed);
            self.modes.leave();
        }
    }

    fn key(code: KeyCode, modifiers: KeyModifiers) -> Option<Key> {
        Some(match code {
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Key::Interrupt,
            KeyCode::Char(c) => Key::Char(c),
            KeyCode::Tab | KeyCode::Right => Key::Next,
            KeyCode::BackTab | KeyCode::Left => Key::Previous,
            KeyCode::Esc => Key::Escape,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_keys_and_sequences_are_not_their_letters() {
        assert_eq!(keys_of(b"2x "), [Key::Char('2'), Key::Char('x'), Key::Char(' ')]);
        assert_eq!(
            keys_of(b"\x1b[C\x1b[D\x1b[Z\t\x1bOC"),
            [Key::Next, Key::Previous, Key::Previous, Key::Next, Key::Next]
        );
        assert_eq!(keys_of(b"\x1b[200~x\x1b[201~"), [Key::Char('x')], "the marks of a paste are none");
        assert_eq!(keys_of("\u{1b}通\u{1b}[".as_bytes()), [Key::Escape]);
        assert_eq!(keys_of(b"\x03"), [Key::Interrupt]);
    }
}
