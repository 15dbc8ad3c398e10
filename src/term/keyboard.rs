//! Reads single keys without echo while answers are printed, on a thread that ends when the [`Keyboard`] is dropped.
//!
//! The previous terminal mode is restored when the process ends or is suspended. On Unix, Ctrl-C and Ctrl-Z remain
//! signals. A background process neither reads nor changes the terminal, because the system would stop it.

use crate::render::compare::Key;

pub(crate) use system::{Keyboard, TerminalModes};

/// Parses the keys in the bytes of one read.
#[cfg_attr(not(unix), allow(dead_code, reason = "crossterm returns keys as events"))]
fn parse_keys(bytes: &[u8]) -> Vec<Key> {
    let (mut keys, mut rest) = (Vec::new(), bytes);
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'\t' => keys.push(Key::Next),
            0x03 => keys.push(Key::Interrupt),
            b' '..=b'~' => keys.push(Key::Char(char::from(*first))),
            0x1b => match after {
                // The letters of an escape sequence are not keys.
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

    use super::{Key, parse_keys};

    /// Saved terminal mode, and the mode for reading keys.
    #[derive(Clone, Debug)]
    pub(crate) struct TerminalModes {
        saved: Termios,
    }

    impl TerminalModes {
        /// Saves the current mode; `None` if standard input is not a terminal or this is a background process.
        #[must_use]
        pub(crate) fn save() -> Option<Self> {
            tcgetattr(io::stdin()).ok().filter(|_| is_foreground()).map(|saved| Self { saved })
        }

        /// Enables reading keys: without line buffering, echo or blocking.
        pub(crate) fn enable_key_input(&self) {
            let mut modes = self.saved.clone();
            modes.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO);
            modes.special_codes[SpecialCodeIndex::VMIN] = 0;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
            Self::set(&modes);
        }

        /// Restores the saved mode. Errors are ignored: the terminal may be closed.
        pub(crate) fn restore(&self) {
            Self::set(&self.saved);
        }

        fn set(modes: &Termios) {
            if is_foreground() {
                let _ = tcsetattr(io::stdin(), OptionalActions::Now, modes);
            }
        }
    }

    /// Whether this process is in the foreground process group of the terminal, or the terminal does not control it.
    fn is_foreground() -> bool {
        match tcgetpgrp(io::stdin()) {
            Ok(group) => group == rustix::process::getpgrp(),
            Err(error) => error == Errno::NOTTY,
        }
    }

    /// Reads keys until dropped.
    #[derive(Debug)]
    pub(crate) struct Keyboard {
        keys: mpsc::Receiver<Key>,
        modes: TerminalModes,
        /// Closing this end stops the thread.
        stop: Option<UnixStream>,
        thread: Option<JoinHandle<()>>,
    }

    impl Keyboard {
        /// Starts reading keys; `None` if no socket pair or thread can be created.
        #[must_use]
        pub(crate) fn start(modes: TerminalModes) -> Option<Self> {
            let (stop, stopped) = UnixStream::pair().ok()?;
            let (sender, keys) = mpsc::channel(16);
            let thread = thread::Builder::new().spawn(move || read_keys(&stopped, &sender)).ok()?;
            modes.enable_key_input();
            Some(Self { keys, modes, stop: Some(stop), thread: Some(thread) })
        }

        /// Resolves with the next key; never, once the terminal is closed.
        pub(crate) async fn next_key(&mut self) -> Key {
            match self.keys.recv().await {
                Some(key) => key,
                None => std::future::pending().await,
            }
        }
    }

    /// Reads keys until `stopped` is closed; keys pressed after that are left for the next reader.
    fn read_keys(stopped: &UnixStream, keys: &mpsc::Sender<Key>) {
        let stdin = io::stdin();
        loop {
            let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            let (input, ended) = (fds[0].revents(), fds[1].revents());
            // A closed terminal would always be ready.
            if !ended.is_empty() || input.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
                return;
            }
            let mut bytes = [0; 64];
            if !input.is_empty() && is_foreground() {
                let read = match rustix::io::read(&stdin, &mut bytes) {
                    Ok(read) => read,
                    Err(Errno::INTR | Errno::AGAIN) => 0,
                    Err(_) => return,
                };
                for key in parse_keys(&bytes[..read]) {
                    // A full channel means that keys are not consumed; further keys are dropped.
                    let _ = keys.try_send(key);
                }
            } else if !input.is_empty() {
                // Keys belong to the foreground process. A return to the foreground is not signaled, so the next run
                // starts a new keyboard.
                return;
            }
        }
    }

    impl Drop for Keyboard {
        fn drop(&mut self) {
            self.stop.take();
            if let Some(thread) = self.thread.take() {
                // The thread does not panic.
                let _ = thread.join();
            }
            self.modes.restore();
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

    /// Poll interval, after which the thread checks whether the keyboard was dropped.
    const POLL_INTERVAL: Duration = Duration::from_millis(50);

    /// Terminal mode; crossterm saves the previous one.
    #[derive(Clone, Debug)]
    pub(crate) struct TerminalModes;

    impl TerminalModes {
        /// `None` if standard input is not a terminal.
        #[must_use]
        pub(crate) fn save() -> Option<Self> {
            crate::term::input::is_terminal().then_some(Self)
        }

        /// Enables reading keys.
        #[allow(clippy::unused_self, reason = "the same signature as on Unix")]
        pub(crate) fn enable_key_input(&self) {
            let _ = enable_raw_mode();
        }

        /// Restores the previous mode. Errors are ignored: the terminal may be closed.
        #[allow(clippy::unused_self, reason = "the same signature as on Unix")]
        pub(crate) fn restore(&self) {
            let _ = disable_raw_mode();
        }
    }

    /// Reads keys until dropped.
    #[derive(Debug)]
    pub(crate) struct Keyboard {
        modes: TerminalModes,
        keys: mpsc::Receiver<Key>,
        stop: Arc<AtomicBool>,
    }

    impl Keyboard {
        /// Starts reading keys.
        #[must_use]
        #[allow(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
        pub(crate) fn start(modes: TerminalModes) -> Option<Self> {
            modes.enable_key_input();
            let (sender, keys) = mpsc::channel(16);
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = Arc::clone(&stop);
            thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    if let Ok(true) = poll(POLL_INTERVAL)
                        && let Ok(Event::Key(event)) = read()
                        && event.kind == KeyEventKind::Press
                        && let Some(key) = to_key(event.code, event.modifiers)
                        && sender.blocking_send(key).is_err()
                    {
                        return;
                    }
                }
            });
            Some(Self { modes, keys, stop })
        }

        /// Resolves with the next key; never, once the terminal is closed.
        pub(crate) async fn next_key(&mut self) -> Key {
            match self.keys.recv().await {
                Some(key) => key,
                None => std::future::pending().await,
            }
        }
    }

    impl Drop for Keyboard {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
            self.modes.restore();
        }
    }

    fn to_key(code: KeyCode, modifiers: KeyModifiers) -> Option<Key> {
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
    fn letters_of_escape_sequences_are_not_keys() {
        assert_eq!(parse_keys(b"2x "), [Key::Char('2'), Key::Char('x'), Key::Char(' ')]);
        assert_eq!(
            parse_keys(b"\x1b[C\x1b[D\x1b[Z\t\x1bOC"),
            [Key::Next, Key::Previous, Key::Previous, Key::Next, Key::Next]
        );
        assert_eq!(parse_keys(b"\x1b[200~x\x1b[201~"), [Key::Char('x')], "paste markers are not keys");
        assert_eq!(parse_keys("\u{1b}通\u{1b}[".as_bytes()), [Key::Escape]);
        assert_eq!(parse_keys(b"\x03"), [Key::Interrupt]);
    }
}
