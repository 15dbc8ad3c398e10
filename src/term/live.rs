//! A live region on this process's terminal.
//!
//! Owns that it is gone when the process ends, whatever the reason: dropped, interrupted, in panic. Draws on stderr,
//! where everything goes that is not data.

use std::{
    io,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    output::say,
    region::{ERASE, Region},
};

/// Whether a region is on the screen: for the panic's hook, of which a process has one.
static ON_SCREEN: AtomicBool = AtomicBool::new(false);
/// The process ends: nothing is drawn any more.
static ENDED: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The region.
#[derive(Debug)]
pub struct Live {
    region: Region,
    width: Option<usize>,
}

impl Live {
    /// A region that is not shown yet. The system is asked for the terminal's width each time; rows are no wider than
    /// `width` either, where the person wants it.
    #[must_use]
    pub fn new(width: Option<usize>) -> Self {
        HOOK.call_once(|| {
            let told = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                take_away();
                told(panic);
            }));
        });
        Self { region: Region::default(), width }
    }

    /// Shows the rows that `made` makes for a number of columns and rows. A row that is wider than the terminal would
    /// take two, and could not be taken away: what the person wants can only make them narrower.
    pub fn draw(&mut self, made: impl FnOnce(usize, usize) -> Vec<String>) {
        let size = super::size();
        let columns = self.width.map_or(size.0, |wanted| wanted.min(size.0));
        let text = self.region.draw(made(columns, size.1), size);
        // Whoever takes it away has the same lock.
        let _alone = io::stderr().lock();
        if !text.is_empty() && !ENDED.load(Ordering::Relaxed) {
            ON_SCREEN.store(true, Ordering::Relaxed);
            say(&text);
        }
    }

    /// Takes the region away, so that other text can be put out.
    pub fn erase(&mut self) {
        let text = self.region.erase();
        if !text.is_empty() {
            say(text);
            ON_SCREEN.store(false, Ordering::Relaxed);
        }
    }
}

/// Takes whatever region there is off the screen for good, before a process ends that cannot come to its own end.
pub fn end() {
    ENDED.store(true, Ordering::Relaxed);
    take_away();
}

fn take_away() {
    let _alone = io::stderr().lock();
    if ON_SCREEN.swap(false, Ordering::Relaxed) {
        say(ERASE);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.erase();
    }
}
