//! Runs server threads, each with its own single-threaded tokio runtime.
//!
//! A connection, its requests and their upstream connections stay on one thread, so that no work moves between cores.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use tokio::{runtime::Handle, sync::watch};

/// A pool of server threads, which are stopped and joined on drop.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    /// The threads run until this sender is dropped.
    keep_running: Option<watch::Sender<()>>,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// Number of open connections.
    connections: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// Counts a connection of a worker until dropped.
#[derive(Debug)]
pub(super) struct ConnectionGuard(Arc<AtomicUsize>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// If a thread or its runtime cannot be created.
    pub fn start(count: usize) -> io::Result<Self> {
        let (keep_running, stopped) = watch::channel(());
        let mut pool = Self { workers: Vec::new(), keep_running: Some(keep_running) };
        for number in 0..count.max(1) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (handle, mut stopped) = (runtime.handle().clone(), stopped.clone());
            let thread = std::thread::Builder::new().name(format!("serve-{number}"));
            let thread = thread.spawn(move || {
                // The channel carries no values; `changed()` returns an error when the sender is dropped, which stops
                // the worker.
                runtime.block_on(async { while stopped.changed().await.is_ok() {} });
                // Does not wait for blocking tasks, such as a key command that is still running.
                runtime.shutdown_background();
            })?;
            pool.workers.push(Worker { handle, connections: Arc::default(), thread: Some(thread) });
        }
        Ok(pool)
    }

    /// Worker with the fewest connections, and the guard that counts a new connection of it.
    pub(super) fn least_busy(&self) -> (&Handle, ConnectionGuard) {
        let least = self.workers.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed));
        let worker = least.expect("`start` creates at least one worker");
        worker.connections.fetch_add(1, Ordering::Relaxed);
        (&worker.handle, ConnectionGuard(Arc::clone(&worker.connections)))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.keep_running = None;
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            // A panic was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}
