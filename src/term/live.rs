//! Draws a live region on stderr and erases it when the process ends, also on a panic or an interrupt.

use std::{
    io,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    output::write_terminal,
    region::{ERASE_SEQUENCE, Region},
};

/// Whether a region is on the screen. Static because the panic hook of the process reads it.
static ON_SCREEN: AtomicBool = AtomicBool::new(false);
/// Set when the process ends, so that the region is not drawn again.
static DRAWING_DISABLED: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();

/// A live region on stderr, erased on drop.
#[derive(Debug)]
pub(crate) struct LiveRegion {
    region: Region,
    width: Option<usize>,
}

impl LiveRegion {
    /// Creates a region that is not shown yet. The terminal width is queried on each draw; `width` limits it further.
    #[must_use]
    pub(crate) fn new(width: Option<usize>) -> Self {
        PANIC_HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                erase_if_shown();
                previous(panic);
            }));
        });
        Self { region: Region::default(), width }
    }

    /// Draws the rows that `render` returns for a number of columns and rows. A row wider than the terminal would wrap
    /// and could not be erased, so the requested width can only make rows narrower.
    pub(crate) fn draw(&mut self, render: impl FnOnce(usize, usize) -> Vec<String>) {
        let size = super::size();
        let columns = self.width.map_or(size.0, |requested| requested.min(size.0));
        let text = self.region.draw(render(columns, size.1), size);
        // `erase_if_shown` takes the same lock.
        let _lock = io::stderr().lock();
        if !text.is_empty() && !DRAWING_DISABLED.load(Ordering::Relaxed) {
            ON_SCREEN.store(true, Ordering::Relaxed);
            write_terminal(&text);
        }
    }

    /// Erases the region, so that other text can be printed.
    pub(crate) fn erase(&mut self) {
        let text = self.region.erase();
        if !text.is_empty() {
            write_terminal(text);
            ON_SCREEN.store(false, Ordering::Relaxed);
        }
    }
}

/// Erases the region and disables further drawing, before the process is ended from another thread.
pub(crate) fn shut_down() {
    DRAWING_DISABLED.store(true, Ordering::Relaxed);
    erase_if_shown();
}

fn erase_if_shown() {
    let _lock = io::stderr().lock();
    if ON_SCREEN.swap(false, Ordering::Relaxed) {
        write_terminal(ERASE_SEQUENCE);
    }
}

impl Drop for LiveRegion {
    fn drop(&mut self) {
        self.erase();
    }
}
