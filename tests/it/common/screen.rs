//! Runs the binary on a pseudoterminal that answers no terminal queries.

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

use super::TestEnv;

/// A process with stdout and stderr on one pseudoterminal.
pub(crate) struct TerminalProcess {
    pub(crate) child: Child,
    pub(crate) terminal: File,
    pub(crate) output: String,
    /// The first bytes of a character that is not complete yet.
    partial_char: Vec<u8>,
}

impl TerminalProcess {
    pub(crate) fn start(env: &TestEnv, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = env.command();
        command.args(arguments);
        Self::with_env(command, environment)
    }

    /// Runs `command` with these environment variables.
    pub(crate) fn with_env(mut command: Command, environment: &[(&str, &str)]) -> Self {
        command.env("TERM", "xterm-256color").envs(environment.iter().copied());
        Self::spawn_on_terminal(command, false, (80, 24))
    }

    /// Runs `command` on a terminal of this size; `with_stdin`: its standard input is the terminal, too.
    pub(crate) fn spawn(mut command: Command, with_stdin: bool, size: (u16, u16)) -> Self {
        if !command.get_envs().any(|(name, _)| name == "TERM") {
            command.env("TERM", "xterm-256color");
        }
        Self::spawn_on_terminal(command, with_stdin, size)
    }

    fn spawn_on_terminal(mut command: Command, with_stdin: bool, (columns, rows): (u16, u16)) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        // Only Linux has this flag. Without it the child inherits the controlling side and never sees the terminal
        // close.
        #[cfg(target_os = "linux")]
        let flags = flags | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).expect("pseudoterminal");
        grantpt(&terminal).expect("own terminal");
        unlockpt(&terminal).expect("own terminal");
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        let name = ptsname(&terminal, Vec::new()).expect("terminal name").into_string().expect("UTF-8 name");
        let open_user_side = || OpenOptions::new().read(true).write(true).open(&name).expect("openable terminal");
        let user_side = open_user_side();
        tcsetwinsize(&user_side, size).expect("settable size");
        if with_stdin {
            command.stdin(Stdio::from(open_user_side()));
        }
        let child = command
            .stdout(Stdio::from(open_user_side()))
            .stderr(Stdio::from(open_user_side()))
            .spawn()
            .expect("program starts");
        Self { child, terminal: File::from(terminal), output: String::new(), partial_char: Vec::new() }
    }

    /// Reads until the unconsumed output contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) {
        while !self.output.contains(text) {
            assert!(self.read(), "ended without {text:?}: {:?}", self.output);
        }
    }

    /// Waits for `text` and drops the output up to its end.
    pub(crate) fn consume_until(&mut self, text: &str) {
        self.wait_for(text);
        let end = self.output.find(text).expect("waited for above") + text.len();
        self.output.drain(..end);
    }

    /// Waits until the terminal does not echo input.
    pub(crate) fn wait_for_no_echo(&self) {
        let echoes = || tcgetattr(&self.terminal).expect("open terminal").local_modes.contains(LocalModes::ECHO);
        while echoes() {
            std::thread::yield_now();
        }
    }

    /// Types these keys.
    pub(crate) fn type_keys(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).expect("open terminal");
    }

    /// Presses Ctrl-C until the process exits: a key pressed between two prompts may be discarded. `by_signal`: sends
    /// SIGINT, as a terminal in canonical mode does.
    pub(crate) fn interrupt(mut self, by_signal: bool) -> (String, i32) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let press = |screen: &mut Self| {
            if by_signal {
                // The process may have exited already.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            } else {
                screen.type_keys("\u{3}");
            }
        };
        press(&mut self);
        loop {
            let mut ready = [PollFd::new(&self.terminal, PollFlags::IN)];
            let interval = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
            if poll(&mut ready, Some(&interval)).expect("open terminal") == 0 {
                press(&mut self);
            } else if !self.read() {
                return self.wait_for_exit();
            }
        }
    }

    /// Stops terminal output, as Ctrl-S does.
    pub(crate) fn stop_output(&self) {
        let name = ptsname(&self.terminal, Vec::new()).expect("terminal name").into_string().expect("UTF-8 name");
        let user_side = OpenOptions::new().read(true).write(true).open(name).expect("openable terminal");
        tcflow(user_side, Action::OOff).expect("open terminal");
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.terminal, size).expect("settable size");
    }

    /// Reads what is available; `false` at the end of the output.
    pub(crate) fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        // A test that waits for output that never arrives fails with the output so far.
        let mut ready = [PollFd::new(&self.terminal, PollFlags::IN)];
        let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
        assert_ne!(poll(&mut ready, Some(&limit)).expect("open terminal"), 0, "no output for 30 s: {:?}", self.output);
        // Reading from a terminal whose other side is closed fails instead of returning 0 bytes.
        let count = self.terminal.read(&mut bytes).unwrap_or(0);
        self.partial_char.extend_from_slice(&bytes[..count]);
        let complete = match std::str::from_utf8(&self.partial_char) {
            Err(error) if error.error_len().is_none() && count > 0 => error.valid_up_to(),
            _ => self.partial_char.len(),
        };
        let complete: Vec<u8> = self.partial_char.drain(..complete).collect();
        self.output.push_str(&String::from_utf8_lossy(&complete));
        count > 0
    }

    /// Reads to the end. Returns the unconsumed output and the exit code.
    pub(crate) fn wait_for_exit(mut self) -> (String, i32) {
        // The output ends when the last process closes its side, which is the child.
        while self.read() {}
        let code = self.child.wait().expect("child has been started").code().expect("exit code");
        (self.output.replace("\r\n", "\n"), code)
    }
}
