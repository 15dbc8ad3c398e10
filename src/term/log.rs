//! Lines of a server on standard error.
//!
//! Owns that whoever has something to say never waits for who reads it: lines go through a thread of their own, and where
//! nobody takes them fast enough, some are lost, which is said once there is room. Refuses to know what they say.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::signals::in_time;

/// As many lines as may wait.
const WAITING: usize = 8192;
/// As much is written at once.
const AT_ONCE: usize = 256 * 1024;
/// How long a line waits for others to be written with, so that nobody has to wake the thread for each.
const GATHERED: Duration = Duration::from_millis(10);

/// Takes lines and writes them.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None`: it is closed.
    sender: Mutex<Option<SyncSender<String>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    lost: Arc<AtomicU64>,
}

impl Lines {
    /// Lines go to standard error.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn to_stderr() -> io::Result<Self> {
        Self::to(io::stderr())
    }

    fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, lines) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || write(out, &lines, &counted))?;
        let (sender, thread) = (Mutex::new(Some(sender)), Mutex::new(Some(thread)));
        Ok(Self(Arc::new(Shared { sender, thread, lost })))
    }

    /// Hands a line over.
    pub fn put(&self, line: String) {
        let sender = self.0.sender.lock().expect("no code panics while it holds this lock");
        let taken = sender.as_ref().is_some_and(|sender| sender.try_send(line).is_ok());
        if !taken {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what is still waiting, as far as somebody takes it, and takes no more.
    pub fn close(&self) {
        drop(self.0.sender.lock().expect("no code panics while it holds this lock").take());
        let thread = self.0.thread.lock().expect("no code panics while it holds this lock").take();
        if let Some(thread) = thread {
            in_time(move || drop(thread.join()));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "while it sleeps, nobody who hands a line over has to wake it")]
fn write(mut out: impl Write, lines: &Receiver<String>, lost: &AtomicU64) {
    while let Ok(first) = lines.recv() {
        std::thread::sleep(GATHERED);
        let mut text = first + "\n";
        while text.len() < AT_ONCE
            && let Ok(next) = lines.try_recv()
        {
            text.push_str(&next);
            text.push('\n');
        }
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            text.push_str(&serde_json::json!({"event": "log-lost", "lines": missing}).to_string());
            text.push('\n');
        }
        // Where nobody reads any more, a server goes on all the same.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Takes what is written only once it is let.
    struct Slow {
        let_go: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once nobody lets it any more, it takes everything.
            let _ = self.let_go.recv();
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_logs_never_waits_and_what_is_lost_is_said() {
        let ((go, let_go), (written, seen)) = (channel(), channel());
        let lines = Lines::to(Slow { let_go, written }).expect("a thread");
        for number in 0..WAITING * 2 {
            lines.put(number.to_string());
        }
        drop(go);
        lines.close();
        let text = seen.iter().flatten().collect::<Vec<_>>();
        let text = String::from_utf8(text).expect("text");
        assert!(text.starts_with("0\n1\n"), "{}", &text[..20]);
        assert!(text.contains("log-lost"));
    }
}
