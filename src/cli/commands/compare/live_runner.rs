//! Runs the calls of a plan on a network thread and draws the view on the calling thread.
//!
//! The network thread applies events to the shared view and key presses to the calls; the screen thread writes and
//! draws. The network thread never waits for the screen, so that slow output delays neither a call nor its measured
//! times: while the screen thread holds the view to lay out rows, events are deferred and applied afterwards.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant as Moment},
};

use futures_util::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::{runtime::Runtime, sync::Notify, time::Instant};

use crate::{
    cli::{
        CliError, Context,
        support::{
            exit::Exit,
            recording::{RunRecorder, RunSummary},
        },
    },
    engine::{Engine, Event, Run, plan::Plan},
    render::{
        Output, Stream,
        compare::{Action, CompareView, Key},
    },
    term::{
        self,
        keyboard::{Keyboard, TerminalModes},
        live::LiveRegion,
        output::{Streams, WriteError},
        signals::{InterruptHandler, SuspendSignal, suspend_process, suspend_requested},
    },
};

/// Minimum time between two drawings.
const MIN_DRAW_INTERVAL: Duration = Duration::from_millis(33);
/// Time between two drawings without events, for running times.
const IDLE_DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// The inputs of a run.
pub(crate) struct LiveRunner<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) engine: Arc<Engine>,
    pub(crate) plan: Plan,
    pub(crate) view: CompareView,
    pub(crate) streams: Streams,
    pub(crate) interruption: &'a InterruptHandler,
    /// The live region, if there is a screen for it.
    pub(crate) live: Option<LiveRegion>,
    /// The terminal modes, if keys can be read.
    pub(crate) modes: Option<TerminalModes>,
    /// Records the run, unless it is the demo.
    pub(crate) recorder: Option<RunRecorder>,
}

/// The state shared by the two threads.
struct Shared {
    state: Mutex<SharedView>,
    /// Events that arrived while the other thread held the view, in order. Lock order: first `state`, then this.
    deferred: Mutex<Vec<Event>>,
    /// The screen thread has ended; the remaining calls are not needed.
    screen_ended: Notify,
}

struct SharedView {
    view: CompareView,
    output: Output,
    end_reason: Option<EndReason>,
    /// The process is to be suspended (SIGTSTP).
    suspend_requested: bool,
}

/// Why the run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndReason {
    /// All calls have finished.
    AllFinished,
    Interrupted,
}

impl LiveRunner<'_> {
    /// Runs the plan and shows it. `background` runs on the network thread during the calls; it must not complete.
    pub(crate) fn run(
        self,
        context: &Context,
        background: impl Future<Output = io::Error> + Send,
    ) -> Result<RunResult, CliError> {
        let Self { runtime, engine, plan, mut view, mut streams, interruption, live, modes, recorder } = self;
        let modes = modes.filter(|_| live.is_some());
        if modes.is_some() {
            view = view.with_keys();
        }
        let mut output = Output::default();
        view.start(&mut output);
        let state = SharedView { view, output, end_reason: None, suspend_requested: false };
        let shared = Shared::new(state);
        let (wake, wakeups) = sync_channel(1);
        let (draws, network_modes) = (live.is_some(), modes.clone());
        let (screen_result, network_result, recorder) = thread::scope(|scope| {
            let shared = &shared;
            let network = scope.spawn(move || {
                let mut network = NetworkTask { shared, interruption, wake, draws, recorder };
                let calls = network.run(engine.run(plan.retaining_text()), network_modes);
                let result = runtime.block_on(async {
                    tokio::select! {
                        result = calls => result,
                        error = background => Err(error),
                    }
                });
                // Dropping `network.wake` here ends the loop of the screen thread.
                (result, network.recorder)
            });
            let width = || term::width(&context.environment);
            let screen_result = run_screen(shared, &wakeups, &mut streams, (live, modes.as_ref()), &width);
            shared.screen_ended.notify_one();
            let (network_result, recorder) = network.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (screen_result, network_result, recorder)
        });
        if let Some(modes) = &modes {
            modes.restore();
        }
        let summary = recorder.map(RunRecorder::close).unwrap_or_default();
        // After a write error, events may still be deferred.
        shared.with(|_| ());
        let SharedView { view, end_reason, .. } = shared.state.into_inner();
        let exit = match end_reason {
            Some(EndReason::Interrupted) => Exit::Interrupted,
            _ => Exit::from_records(view.records()),
        };
        let stdout_open = !matches!(screen_result, Err(WriteError::StdoutClosed));
        if stdout_open {
            screen_result?;
            network_result?;
        }
        Ok(RunResult { exit, summary, view, streams, stdout_open })
    }
}

/// The result of a run.
pub(crate) struct RunResult {
    pub(crate) exit: Exit,
    pub(crate) summary: RunSummary,
    pub(crate) view: CompareView,
    pub(crate) streams: Streams,
    /// stdout is still open.
    pub(crate) stdout_open: bool,
}

impl RunResult {
    /// Closes the streams.
    pub(crate) fn close_streams(mut self) -> Result<(Exit, RunSummary), CliError> {
        if self.stdout_open {
            self.streams.finish(self.exit == Exit::Ok)?;
        }
        Ok((self.exit, self.summary))
    }
}

impl Shared {
    fn new(state: SharedView) -> Self {
        Self { state: Mutex::new(state), deferred: Mutex::default(), screen_ended: Notify::new() }
    }

    /// Applies the deferred events, then runs `use_view` on the view.
    fn with<T>(&self, use_view: impl FnOnce(&mut SharedView) -> T) -> T {
        let mut state = self.state.lock();
        self.apply_deferred(&mut state);
        use_view(&mut state)
    }

    /// Applies `event` to the view, or defers it while the view is locked.
    fn apply_or_defer(&self, event: Event) {
        self.deferred_events().push(event);
        if let Some(mut state) = self.state.try_lock() {
            self.apply_deferred(&mut state);
        }
    }

    fn apply_deferred(&self, state: &mut SharedView) {
        let events = std::mem::take(&mut *self.deferred_events());
        for event in &events {
            state.view.on_event(event, &mut state.output);
        }
    }

    fn deferred_events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.deferred.lock()
    }
}

/// The state of the network thread.
struct NetworkTask<'a> {
    shared: &'a Shared,
    interruption: &'a InterruptHandler,
    wake: SyncSender<()>,
    /// A live region is drawn; it must be erased before the process is suspended.
    draws: bool,
    recorder: Option<RunRecorder>,
}

/// What wakes the network thread.
enum WakeReason {
    Event(Box<Event>),
    Key(Key),
    /// All calls have finished.
    AllFinished,
    Interrupted,
    Suspended,
    /// The screen thread has ended.
    ScreenEnded,
}

impl NetworkTask<'_> {
    /// Applies events to the view and key presses to the calls, until all calls have finished or the run is stopped.
    async fn run(&mut self, mut run: Run, modes: Option<TerminalModes>) -> io::Result<()> {
        let mut keyboard = modes.and_then(Keyboard::start);
        // Without a live region, nothing has to be erased before the process is suspended.
        let mut suspension = if self.draws { Some(SuspendSignal::listen()?) } else { None };
        let mut interrupted = Box::pin(self.interruption.received());
        let mut all_finished = false;
        loop {
            let reason = tokio::select! {
                biased;
                () = &mut interrupted => WakeReason::Interrupted,
                () = self.shared.screen_ended.notified() => WakeReason::ScreenEnded,
                () = suspend_requested(&mut suspension) => WakeReason::Suspended,
                key = next_key(&mut keyboard) => WakeReason::Key(key),
                event = run.next(), if !all_finished => event.map_or(WakeReason::AllFinished, |event| WakeReason::Event(Box::new(event))),
            };
            match reason {
                WakeReason::Event(event) => {
                    self.record(&event);
                    self.shared.apply_or_defer(*event);
                }
                WakeReason::Key(key) => match self.shared.with(|state| state.view.on_key(key)) {
                    Some(Action::Stop(call)) => run.stop(call),
                    Some(Action::Restart(call)) => {
                        run.restart(call);
                        all_finished = false;
                    }
                    Some(Action::Leave) => return self.interrupt(&mut run),
                    None => {}
                },
                WakeReason::AllFinished => all_finished = true,
                WakeReason::Suspended => self.shared.with(|state| state.suspend_requested = true),
                WakeReason::Interrupted => return self.interrupt(&mut run),
                WakeReason::ScreenEnded => {
                    for event in run.stop_all() {
                        self.record(&event);
                    }
                    return Ok(());
                }
            }
            // A held view stays until the user releases it.
            if all_finished && !self.shared.with(|state| state.view.is_held()) {
                self.shared.with(|state| state.end_reason = Some(EndReason::AllFinished));
                return Ok(());
            }
            // A full channel means that the screen thread will wake up anyway.
            let _ = self.wake.try_send(());
        }
    }

    /// Ends the run early: the text received so far is shown and recorded.
    #[expect(clippy::unnecessary_wraps, reason = "same type as the other ends of the loop")]
    fn interrupt(&mut self, run: &mut Run) -> io::Result<()> {
        let ended = run.stop_all();
        for event in &ended {
            self.record(event);
        }
        self.shared.with(|state| {
            state.view.release_hold();
            for event in &ended {
                state.view.on_event(event, &mut state.output);
            }
            state.end_reason = Some(EndReason::Interrupted);
        });
        Ok(())
    }

    fn record(&mut self, event: &Event) {
        if let Some(recorder) = &mut self.recorder {
            recorder.on_event(event);
        }
    }
}

async fn next_key(keyboard: &mut Option<Keyboard>) -> Key {
    match keyboard {
        Some(keyboard) => keyboard.next_key().await,
        None => std::future::pending().await,
    }
}

/// Writes the final output, at the current width of the terminal.
fn write_final_output(shared: &Shared, streams: &mut Streams, width: &dyn Fn() -> usize) -> Result<(), WriteError> {
    let mut output = shared.with(|state| {
        state.view.set_width(width());
        if state.end_reason.is_some() {
            state.view.finish(&mut state.output);
        }
        std::mem::take(&mut state.output)
    });
    streams.write(&mut output)
}

/// Writes and draws until the network thread has ended.
fn run_screen(
    shared: &Shared,
    wakeups: &Receiver<()>,
    streams: &mut Streams,
    (mut live, modes): (Option<LiveRegion>, Option<&TerminalModes>),
    width: &dyn Fn() -> usize,
) -> Result<(), WriteError> {
    let mut last_drawn: Option<Moment> = None;
    let mut network_ended = false;
    loop {
        let (mut output, run_ended, suspended) = shared.with(|state| {
            (
                std::mem::take(&mut state.output),
                state.end_reason.is_some(),
                std::mem::take(&mut state.suspend_requested),
            )
        });
        if let Some(live) = &mut live {
            let writes_to_screen = !output.is_empty() && (streams.is_stdout() || output.has_text(Stream::Err));
            if suspended || run_ended || writes_to_screen {
                live.erase();
                last_drawn = None;
            }
            if suspended {
                if let Some(modes) = modes {
                    modes.restore();
                }
                suspend_process();
                // The run may have ended during the suspension; then key input stays off.
                shared.with(|state| {
                    modes.filter(|_| state.end_reason.is_none()).into_iter().for_each(TerminalModes::enable_key_input);
                });
            }
        }
        streams.write(&mut output)?;
        if network_ended {
            return write_final_output(shared, streams, width);
        }
        let Some(live) = live.as_mut().filter(|_| !run_ended) else {
            network_ended = wakeups.recv().is_err();
            continue;
        };
        let is_due = last_drawn.is_none_or(|drawn| drawn.elapsed() >= MIN_DRAW_INTERVAL);
        if is_due {
            live.draw(|columns, rows| shared.with(|state| state.view.live_rows(columns, rows, Instant::now())));
            last_drawn = Some(Moment::now());
        }
        let timeout = match last_drawn {
            Some(drawn) if !is_due => MIN_DRAW_INTERVAL.saturating_sub(drawn.elapsed()),
            _ => IDLE_DRAW_INTERVAL,
        };
        network_ended = wakeups.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::EventKind,
        model::{Delta, DeltaKind},
        render::{
            Format, TerminalInfo,
            compare::{CompareSettings, View},
        },
    };

    fn text_event(call: usize, text: &str) -> Event {
        let delta = Delta { choice: 0, kind: DeltaKind::Text(text.into()) };
        Event { call, at: Instant::now(), kind: EventKind::Deltas(vec![delta].into()) }
    }

    #[test]
    fn events_during_layout_are_deferred_in_order_without_blocking() {
        let settings = CompareSettings {
            format: Format::Text,
            view: View::Tagged,
            terminal: TerminalInfo::default(),
            has_live_region: false,
            render_markdown: false,
            verbose: false,
            keep_answers: false,
            answers_in_object: false,
        };
        let view = CompareView::new(settings, ["a", "b"].into_iter(), Instant::now());
        let shared =
            Shared::new(SharedView { view, output: Output::default(), end_reason: None, suspend_requested: false });
        let layout_lock = shared.state.lock();
        // Would deadlock if `apply_or_defer` waited for the lock.
        for (call, text) in [(0, "one\n"), (1, "two\n"), (0, "three\n")] {
            shared.apply_or_defer(text_event(call, text));
        }
        drop(layout_lock);
        shared.apply_or_defer(text_event(1, "four\n"));
        let out = shared.with(|state| std::mem::take(state.output.out()));
        assert_eq!(out, "a| one\nb| two\na| three\nb| four\n");
    }
}
