//! The binary on a terminal that answers no query: what reaches the screen, and what is typed.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    process::{Child, Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Action, LocalModes, Winsize, tcflow, tcgetattr, tcsetwinsize},
};

use super::Home;

/// A run with stdout and stderr on one terminal.
pub(crate) struct Screen {
    pub(crate) child: Child,
    pub(crate) terminal: File,
    pub(crate) seen: String,
    /// The first bytes of a character whose others are still to come.
    begun: Vec<u8>,
}

impl Screen {
    pub(crate) fn start(home: &Home, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = home.command();
        command.args(arguments);
        Self::of_with(command, environment)
    }

    /// `command` with these variables.
    pub(crate) fn of_with(mut command: Command, environment: &[(&str, &str)]) -> Self {
        command.env("TERM", "xterm-256color").envs(environment.iter().copied());
        Self::spawned(command, false, (80, 24))
    }

    /// `command` on a terminal of this size; `typed`: its standard input, too.
    pub(crate) fn of(mut command: Command, typed: bool, size: (u16, u16)) -> Self {
        if !command.get_envs().any(|(name, _)| name == "TERM") {
            command.env("TERM", "xterm-256color");
        }
        Self::spawned(command, typed, size)
    }

    fn spawned(mut command: Command, typed: bool, (columns, rows): (u16, u16)) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        // Where it can be said: a child that holds its own terminal's other end never sees it closed.
        #[cfg(target_os = "linux")]
        let flags = flags | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).expect("a terminal");
        grantpt(&terminal).expect("ours");
        unlockpt(&terminal).expect("ours");
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        let name = ptsname(&terminal, Vec::new()).expect("a name").into_string().expect("text");
        let side = || OpenOptions::new().read(true).write(true).open(&name).expect("the other side");
        let other = side();
        tcsetwinsize(&other, size).expect("a size");
        if typed {
            command.stdin(Stdio::from(side()));
        }
        let child = command.stdout(Stdio::from(side())).stderr(Stdio::from(side())).spawn().expect("runs");
        Self { child, terminal: File::from(terminal), seen: String::new(), begun: Vec::new() }
    }

    /// Reads on until the screen shows `text` behind what was waited for before.
    pub(crate) fn wait_for(&mut self, text: &str) {
        while !self.seen.contains(text) {
            assert!(self.read(), "ended without {text:?}: {:?}", self.seen);
        }
    }

    /// As `wait_for`, and forgets all that came up to it.
    pub(crate) fn pass(&mut self, text: &str) {
        self.wait_for(text);
        let end = self.seen.find(text).expect("it was waited for") + text.len();
        self.seen.drain(..end);
    }

    /// Waits until what is typed is not shown any more.
    pub(crate) fn wait_for_no_echo(&self) {
        let shows = || tcgetattr(&self.terminal).expect("a terminal").local_modes.contains(LocalModes::ECHO);
        while shows() {
            std::thread::yield_now();
        }
    }

    /// Presses keys.
    pub(crate) fn type_keys(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).expect("somebody reads");
    }

    /// Presses Ctrl-C until the process is gone: one pressed between two questions may be nobody's. `signalled`: as a
    /// terminal in its usual mode does it, by a signal.
    pub(crate) fn interrupt(mut self, signalled: bool) -> (String, i32) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let press = |screen: &mut Self| {
            if signalled {
                // It may have ended by itself.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            } else {
                screen.type_keys("\u{3}");
            }
        };
        press(&mut self);
        loop {
            let mut ready = [PollFd::new(&self.terminal, PollFlags::IN)];
            let again = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
            if poll(&mut ready, Some(&again)).expect("a terminal") == 0 {
                press(&mut self);
            } else if !self.read() {
                return self.end();
            }
        }
    }

    /// Ctrl-S: the terminal takes nothing any more.
    pub(crate) fn hold(&self) {
        let name = ptsname(&self.terminal, Vec::new()).expect("a name").into_string().expect("text");
        let other = OpenOptions::new().read(true).write(true).open(name).expect("the other side");
        tcflow(other, Action::OOff).expect("a terminal");
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.terminal, size).expect("a size");
    }

    pub(crate) fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        // A test that waits for what never comes ends with what did.
        let mut ready = [PollFd::new(&self.terminal, PollFlags::IN)];
        let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
        assert_ne!(poll(&mut ready, Some(&limit)).expect("a terminal"), 0, "nothing more comes: {:?}", self.seen);
        // A terminal whose other side is closed gives an error, not an end.
        let count = self.terminal.read(&mut bytes).unwrap_or(0);
        self.begun.extend_from_slice(&bytes[..count]);
        let whole = match std::str::from_utf8(&self.begun) {
            Err(error) if error.error_len().is_none() && count > 0 => error.valid_up_to(),
            _ => self.begun.len(),
        };
        let whole: Vec<u8> = self.begun.drain(..whole).collect();
        self.seen.push_str(&String::from_utf8_lossy(&whole));
        count > 0
    }

    /// Everything that reached the screen since it was last passed, and the exit code.
    pub(crate) fn end(mut self) -> (String, i32) {
        // The read ends only when nobody holds the other side: the child is the last.
        while self.read() {}
        let code = self.child.wait().expect("ends").code().expect("a code");
        (self.seen.replace("\r\n", "\n"), code)
    }
}
