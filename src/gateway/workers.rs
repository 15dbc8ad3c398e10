//! Threads that serve, each with an event loop of its own.
//!
//! Owns that a connection, its requests and their upstreams stay on one thread: nothing of them is handed from core to core.
//! Refuses to know what they do.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use tokio::{runtime::Handle, sync::watch};

/// Some threads, which end with this.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    /// They go on for as long as this is held.
    go_on: Option<watch::Sender<()>>,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// How many connections it has.
    busy: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// A connection of a worker, until dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// As many threads.
    ///
    /// # Errors
    /// When the system has none, or no event loop for them.
    pub fn start(count: usize) -> io::Result<Self> {
        let (go_on, wait) = watch::channel(());
        let mut all = Self { workers: Vec::new(), go_on: Some(go_on) };
        for number in 0..count.max(1) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (handle, mut wait) = (runtime.handle().clone(), wait.clone());
            let thread = std::thread::Builder::new().name(format!("serve-{number}"));
            let thread = thread.spawn(move || {
                // Nothing is ever told: it is over when nobody can tell anything any more.
                runtime.block_on(async { while wait.changed().await.is_ok() {} });
                // Whatever still waits for a command that gives a key is not waited for.
                runtime.shutdown_background();
            })?;
            all.workers.push(Worker { handle, busy: Arc::default(), thread: Some(thread) });
        }
        Ok(all)
    }

    /// The one with the fewest connections, which has one more until the seat is dropped.
    pub(super) fn least_busy(&self) -> (&Handle, Seat) {
        let least = self.workers.iter().min_by_key(|worker| worker.busy.load(Ordering::Relaxed));
        let worker = least.expect("there is at least one");
        worker.busy.fetch_add(1, Ordering::Relaxed);
        (&worker.handle, Seat(Arc::clone(&worker.busy)))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.go_on = None;
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}
