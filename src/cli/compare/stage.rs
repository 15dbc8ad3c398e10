//! Lanes at work on one thread, the screen on another.
//!
//! Owns the hand-over between them: the network's thread applies what happens to the view as it happens, this one writes
//! and draws what has come of it. Nobody waits for the screen: a reader that is slow slows neither a lane nor a clock.

use std::{
    io,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant as Moment},
};

use futures_util::StreamExt;
use tokio::{sync::Notify, time::Instant};

use crate::{
    cli::{CliError, Context, exit::Exit, keep::Keeper},
    engine::Engine,
    plan::Plan,
    render::{Output, Stream, compare::CompareView},
    term::{
        self,
        live::Live,
        output::{Streams, WriteError, say},
        signals::{Interruption, Suspension, stop_for_a_while},
    },
};

/// Two drawings are at least so far apart.
const BETWEEN_DRAWINGS: Duration = Duration::from_millis(33);
/// Times that run are drawn so often although nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// Everything a run needs.
pub(crate) struct Stage<'a> {
    pub(crate) engine: Arc<Engine>,
    pub(crate) plan: Plan,
    pub(crate) view: CompareView,
    pub(crate) streams: Streams,
    pub(crate) interruption: &'a Interruption,
    /// Rows that are drawn while answers come, if there is a screen for them.
    pub(crate) live: Option<Live>,
    /// Keeps what outlives the command, if anything does.
    pub(crate) keeper: Option<Keeper>,
}

/// What the two threads share.
struct Shared {
    show: Mutex<Show>,
    /// Nobody wants the rest.
    enough: Notify,
}

struct Show {
    view: CompareView,
    output: Output,
    over: Option<Over>,
    /// The person wants the process to stop for a while.
    suspended: bool,
}

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// All lanes are over.
    All,
    Interrupted,
}

impl Stage<'_> {
    /// Runs the plan and shows it. `beside` works on the network's thread as long as the lanes do; its end is an error.
    pub(crate) fn run(
        self,
        context: &Context,
        beside: impl Future<Output = io::Error> + Send,
    ) -> Result<Exit, CliError> {
        let Self { engine, plan, mut view, mut streams, interruption, live, mut keeper } = self;
        let mut output = Output::default();
        view.begin(&mut output);
        let show = Show { view, output, over: None, suspended: false };
        let shared = Shared { show: Mutex::new(show), enough: Notify::new() };
        let (wake, woken) = sync_channel(1);
        let runtime = context.runtime()?;
        let (shared, watched) = (&shared, live.is_some());
        thread::scope(|scope| {
            let network = scope.spawn(move || {
                let work = network(&engine, plan, shared, (&wake, interruption, watched), &mut keeper);
                let worked = runtime.block_on(async {
                    tokio::select! {
                        worked = work => worked,
                        failed = beside => Err(failed),
                    }
                });
                // The screen's thread goes on until nobody can wake it any more.
                drop(wake);
                (worked, keeper)
            });
            let width = || term::width(&context.environment);
            let written = screen(shared, &woken, &mut streams, live, &width);
            shared.enough.notify_one();
            let (worked, keeper) = network.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let kept = keeper.and_then(Keeper::close);
            let show = shared.show.lock().expect("a panic there was passed on");
            let exit = Exit::of_lanes(show.view.outcomes());
            let interrupted = show.over == Some(Over::Interrupted);
            match written {
                Err(WriteError::Closed) if interrupted => return Ok(Exit::Interrupted),
                Err(WriteError::Closed) => return Ok(exit),
                other => other?,
            }
            worked?;
            if let Some(kept) = kept {
                say(&show.view.kept(kept.conversation));
            }
            streams.close(exit == Exit::Ok)?;
            Ok(if interrupted { Exit::Interrupted } else { exit })
        })
    }
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut Show) -> T) -> T {
        act(&mut self.show.lock().expect("no code panics while it holds this lock"))
    }
}

/// Applies what happens to the view, until all lanes are over or nobody wants more.
async fn network(
    engine: &Arc<Engine>,
    plan: Plan,
    shared: &Shared,
    (wake, interruption, watched): (&SyncSender<()>, &Interruption, bool),
    keeper: &mut Option<Keeper>,
) -> io::Result<()> {
    let mut events = Box::pin(engine.run(plan));
    let mut interrupted = Box::pin(interruption.signalled());
    // Where nothing is drawn, a stopped process leaves nothing behind.
    let mut suspension = if watched { Some(Suspension::listen()?) } else { None };
    let mut suspended = async || match &mut suspension {
        Some(suspension) => suspension.signalled().await,
        None => std::future::pending().await,
    };
    loop {
        let over = tokio::select! {
            biased;
            () = &mut interrupted => {
                shared.with(|show| show.view.interrupted(Instant::now(), &mut show.output));
                Some(Over::Interrupted)
            }
            () = shared.enough.notified() => {
                if let Some(keeper) = keeper {
                    keeper.stop();
                }
                return Ok(());
            }
            () = suspended() => {
                shared.with(|show| show.suspended = true);
                None
            }
            event = events.next() => match event {
                Some(event) => {
                    shared.with(|show| show.view.event(&event, &mut show.output));
                    if let Some(keeper) = keeper {
                        keeper.event(&event);
                    }
                    None
                }
                None => Some(Over::All),
            },
        };
        if over.is_some() {
            if let (Some(Over::Interrupted), Some(keeper)) = (over, keeper) {
                keeper.stop();
            }
            shared.with(|show| show.over = over);
            return Ok(());
        }
        // When it is awake already, that will do.
        let _ = wake.try_send(());
    }
}

/// What is kept for the end, as wide as the terminal is then.
fn finish(shared: &Shared, streams: &mut Streams, width: &dyn Fn() -> usize) -> Result<(), WriteError> {
    let mut output = shared.with(|show| {
        show.view.widen(width());
        if show.over.is_some() {
            show.view.end(&mut show.output);
        }
        std::mem::take(&mut show.output)
    });
    streams.put(&mut output)
}

/// Writes and draws until the network's thread is done.
fn screen(
    shared: &Shared,
    woken: &Receiver<()>,
    streams: &mut Streams,
    mut live: Option<Live>,
    width: &dyn Fn() -> usize,
) -> Result<(), WriteError> {
    let mut drawn: Option<Moment> = None;
    let mut done = false;
    loop {
        let (mut output, over, suspended) = shared
            .with(|show| (std::mem::take(&mut show.output), show.over.is_some(), std::mem::take(&mut show.suspended)));
        if let Some(live) = &mut live {
            let shown = !output.is_empty() && (streams.is_stdout() || output.has(Stream::Err));
            if suspended || over || shown {
                live.erase();
                drawn = None;
            }
            if suspended {
                stop_for_a_while();
            }
        }
        streams.put(&mut output)?;
        if done {
            return finish(shared, streams, width);
        }
        let Some(live) = live.as_mut().filter(|_| !over) else {
            done = woken.recv().is_err();
            continue;
        };
        let due = drawn.is_none_or(|drawn| drawn.elapsed() >= BETWEEN_DRAWINGS);
        if due {
            live.draw(|columns, rows| shared.with(|show| show.view.rows(columns, rows, Instant::now())));
            drawn = Some(Moment::now());
        }
        let wait = match drawn {
            Some(drawn) if !due => BETWEEN_DRAWINGS.saturating_sub(drawn.elapsed()),
            _ => TICK,
        };
        done = woken.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected);
    }
}
