//! Lanes at work on one thread, the screen on another.
//!
//! Owns the hand-over between them: the network's thread applies what happens to the view as it happens, and what a person
//! wishes to the lanes; this one writes and draws what has come of it. Nobody waits for the screen: a reader that is slow
//! slows neither a lane nor a clock. While rows are laid out, what happens is put by, and applied right after.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, TryLockError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant as Moment},
};

use futures_util::StreamExt;
use tokio::{runtime::Runtime, sync::Notify, time::Instant};

use crate::{
    cli::{
        CliError, Context,
        support::{
            exit::Exit,
            recording::{Closed, Keeper},
        },
    },
    engine::{Engine, Event, Run, plan::Plan},
    render::{
        Output, Stream,
        compare::{CompareView, Key, Wish},
    },
    term::{
        self,
        keyboard::{Keyboard, Modes},
        live::Live,
        output::{Streams, WriteError},
        signals::{Interruption, Suspension, stop_for_a_while, suspended},
    },
};

/// Two drawings are at least so far apart.
const BETWEEN_DRAWINGS: Duration = Duration::from_millis(33);
/// Times that run are drawn so often although nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// Everything a run needs.
pub(crate) struct Stage<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) engine: Arc<Engine>,
    pub(crate) plan: Plan,
    pub(crate) view: CompareView,
    pub(crate) streams: Streams,
    pub(crate) interruption: &'a Interruption,
    /// Rows that are drawn while answers come, if there is a screen for them.
    pub(crate) live: Option<Live>,
    /// The terminal's modes, where keys can be listened to.
    pub(crate) modes: Option<Modes>,
    /// Keeps what outlives the command, if anything does.
    pub(crate) keeper: Option<Keeper>,
}

/// What the two threads share.
struct Shared {
    show: Mutex<Show>,
    /// What happened while the other thread had the view, in its order. Whoever locks both locks the view first.
    put_by: Mutex<Vec<Event>>,
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
    ) -> Result<Staged, CliError> {
        let Self { runtime, engine, plan, mut view, mut streams, interruption, live, modes, keeper } = self;
        let modes = modes.filter(|_| live.is_some());
        if modes.is_some() {
            view = view.with_keys();
        }
        let mut output = Output::default();
        view.begin(&mut output);
        let show = Show { view, output, over: None, suspended: false };
        let shared = Shared::new(show);
        let (wake, woken) = sync_channel(1);
        let (watched, listened) = (live.is_some(), modes.clone());
        let (written, worked, keeper) = thread::scope(|scope| {
            let shared = &shared;
            let network = scope.spawn(move || {
                let mut network = Network { shared, interruption, wake, watched, keeper };
                let work = network.run(engine.run(plan), listened);
                let worked = runtime.block_on(async {
                    tokio::select! {
                        worked = work => worked,
                        failed = beside => Err(failed),
                    }
                });
                // Its end is that of the screen's thread, which goes on until nobody can wake it any more.
                (worked, network.keeper)
            });
            let width = || term::width(&context.environment);
            let written = screen(shared, &woken, &mut streams, (live, modes.as_ref()), &width);
            shared.enough.notify_one();
            let (worked, keeper) = network.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (written, worked, keeper)
        });
        if let Some(modes) = &modes {
            modes.leave();
        }
        let closed = keeper.map(Keeper::close).unwrap_or_default();
        // Where writing failed, something may still be put by.
        shared.with(|_| ());
        let Show { view, over, .. } = shared.show.into_inner().expect("a panic there was passed on");
        let whole = Exit::of_lanes(view.outcomes());
        let exit = if over == Some(Over::Interrupted) { Exit::Interrupted } else { whole };
        let is_read = !matches!(written, Err(WriteError::Closed));
        if is_read {
            written?;
            worked?;
        }
        Ok(Staged { exit, closed, view, streams, is_read })
    }
}

/// What came of a run.
pub(crate) struct Staged {
    pub(crate) exit: Exit,
    pub(crate) closed: Closed,
    pub(crate) view: CompareView,
    pub(crate) streams: Streams,
    /// Somebody still reads what is put out.
    pub(crate) is_read: bool,
}

impl Staged {
    /// Nothing more is put out.
    pub(crate) fn end(mut self) -> Result<(Exit, Closed), CliError> {
        if self.is_read {
            self.streams.close(self.exit == Exit::Ok)?;
        }
        Ok((self.exit, self.closed))
    }
}

impl Shared {
    fn new(show: Show) -> Self {
        Self { show: Mutex::new(show), put_by: Mutex::default(), enough: Notify::new() }
    }

    /// Acts on a view that knows all that has happened.
    fn with<T>(&self, act: impl FnOnce(&mut Show) -> T) -> T {
        let mut show = self.show.lock().expect("no code panics while it holds this lock");
        self.apply(&mut show);
        act(&mut show)
    }

    /// Applies `event` to the view, at once or as soon as it is free.
    fn event(&self, event: Event) {
        self.waiting().push(event);
        match self.show.try_lock() {
            Ok(mut show) => self.apply(&mut show),
            Err(TryLockError::WouldBlock) => {}
            // As whoever waits for it would.
            Err(TryLockError::Poisoned(_)) => self.with(|_| ()),
        }
    }

    fn apply(&self, show: &mut Show) {
        let events = std::mem::take(&mut *self.waiting());
        for event in &events {
            show.view.event(event, &mut show.output);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Event>> {
        self.put_by.lock().expect("no code panics while it holds this lock")
    }
}

/// The network's thread: what it has beside the lanes.
struct Network<'a> {
    shared: &'a Shared,
    interruption: &'a Interruption,
    wake: SyncSender<()>,
    /// Something is drawn: before the process stops for a while, that is taken away.
    watched: bool,
    keeper: Option<Keeper>,
}

/// What the network's thread is woken by.
enum Woken {
    Event(Box<Event>),
    Key(Key),
    /// Every lane is over.
    Over,
    Interrupted,
    Suspended,
    /// Nobody wants the rest.
    Enough,
}

impl Network<'_> {
    /// Applies what happens to the view, and what a person wishes to the lanes, until all are over or nobody wants more.
    async fn run(&mut self, mut run: Run, modes: Option<Modes>) -> io::Result<()> {
        let mut keyboard = modes.and_then(Keyboard::listen);
        // Where nothing is drawn, a stopped process leaves nothing behind.
        let mut suspension = if self.watched { Some(Suspension::listen()?) } else { None };
        let mut interrupted = Box::pin(self.interruption.signalled());
        let mut all_over = false;
        loop {
            let woken = tokio::select! {
                biased;
                () = &mut interrupted => Woken::Interrupted,
                () = self.shared.enough.notified() => Woken::Enough,
                () = suspended(&mut suspension) => Woken::Suspended,
                key = pressed(&mut keyboard) => Woken::Key(key),
                event = run.next(), if !all_over => event.map_or(Woken::Over, |event| Woken::Event(Box::new(event))),
            };
            match woken {
                Woken::Event(event) => {
                    if let Some(keeper) = &mut self.keeper {
                        keeper.event(&event);
                    }
                    self.shared.event(*event);
                }
                Woken::Key(key) => match self.shared.with(|show| show.view.key(key)) {
                    Some(Wish::Stop(lane)) => run.stop(lane),
                    Some(Wish::Again(lane)) => {
                        run.again(lane);
                        all_over = false;
                    }
                    Some(Wish::Leave) => return self.leave(),
                    None => {}
                },
                Woken::Over => all_over = true,
                Woken::Suspended => self.shared.with(|show| show.suspended = true),
                Woken::Interrupted => return self.leave(),
                Woken::Enough => {
                    self.stop();
                    return Ok(());
                }
            }
            // What a person reads is not taken away.
            if all_over && !self.shared.with(|show| show.view.is_held()) {
                self.shared.with(|show| show.over = Some(Over::All));
                return Ok(());
            }
            // When it is awake already, that will do.
            let _ = self.wake.try_send(());
        }
    }

    /// The person has seen enough: what arrived is shown and kept.
    #[expect(clippy::unnecessary_wraps, reason = "an end like the others")]
    fn leave(&mut self) -> io::Result<()> {
        self.shared.with(|show| {
            show.view.release();
            show.view.interrupted(Instant::now(), &mut show.output);
            show.over = Some(Over::Interrupted);
        });
        self.stop();
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.stop();
        }
    }
}

async fn pressed(keyboard: &mut Option<Keyboard>) -> Key {
    match keyboard {
        Some(keyboard) => keyboard.pressed().await,
        None => std::future::pending().await,
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
    (mut live, modes): (Option<Live>, Option<&Modes>),
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
                if let Some(modes) = modes {
                    modes.leave();
                }
                stop_for_a_while();
                // Whoever listens to keys makes them as before at the end, which may have come meanwhile.
                shared.with(|show| modes.filter(|_| show.over.is_none()).into_iter().for_each(Modes::enter));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::EventKind,
        model::{Delta, DeltaKind},
        render::{
            Format, Look,
            compare::{Settings, View},
        },
    };

    fn says(lane: usize, text: &str) -> Event {
        let delta = Delta { choice: 0, kind: DeltaKind::Text(text.into()) };
        Event { lane, at: Instant::now(), kind: EventKind::Deltas(vec![delta].into()) }
    }

    #[test]
    fn what_happens_while_rows_are_laid_out_waits_for_nobody_and_keeps_its_order() {
        let settings = Settings {
            format: Format::Text,
            view: View::Tagged,
            look: Look::default(),
            drawn: false,
            rendered: false,
            verbose: false,
            prompt_tokens: 0,
            whole: false,
            wrapped: false,
        };
        let view = CompareView::new(settings, ["a", "b"].into_iter(), Instant::now());
        let shared = Shared::new(Show { view, output: Output::default(), over: None, suspended: false });
        let laid_out = shared.show.lock().expect("free");
        // This would wait for ever if it waited at all.
        for (lane, text) in [(0, "one\n"), (1, "two\n"), (0, "three\n")] {
            shared.event(says(lane, text));
        }
        drop(laid_out);
        shared.event(says(1, "four\n"));
        let out = shared.with(|show| std::mem::take(show.output.out()));
        assert_eq!(out, "a| one\nb| two\na| three\nb| four\n");
    }
}
