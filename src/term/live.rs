//! A live region on this process's terminal.
//!
//! Owns that it is gone when the process ends, whatever the reason: dropped, interrupted, in panic. Draws on stderr,
//! where everything goes that is not data.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{
    output::say,
    region::{ERASE, Region},
};

/// The region, and whether it is on the screen.
#[derive(Debug)]
pub struct Live {
    region: Region,
    width: Option<usize>,
    shown: Arc<AtomicBool>,
}

impl Live {
    /// A region that is not shown yet. `width` is the terminal's where the person said it, else the system is asked
    /// each time.
    #[must_use]
    pub fn new(width: Option<usize>) -> Self {
        let shown = Arc::new(AtomicBool::new(false));
        let on_screen = Arc::clone(&shown);
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if on_screen.swap(false, Ordering::Relaxed) {
                say(ERASE);
            }
            told(panic);
        }));
        Self { region: Region::default(), width, shown }
    }

    /// The terminal's columns and rows.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let (columns, rows) = super::size();
        (self.width.unwrap_or(columns), rows)
    }

    /// Shows these rows.
    pub fn draw(&mut self, rows: Vec<String>, size: (usize, usize)) {
        let text = self.region.draw(rows, size);
        if !text.is_empty() {
            self.shown.store(true, Ordering::Relaxed);
            say(&text);
        }
    }

    /// Takes the region away, so that other text can be put out.
    pub fn erase(&mut self) {
        let text = self.region.erase();
        if !text.is_empty() {
            say(text);
            self.shown.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.erase();
    }
}
