//! Room for the bodies of requests.
//!
//! Owns that large bodies take no more memory together than their share, however many are sent at once: what is over that is
//! refused, to be sent again later, and nobody else is. Refuses to know what they say.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::error::{Refused, Why};

/// So much of each body counts for nothing: whoever asks as most do always has room.
const SMALL: usize = 256 * 1024;
/// As many bodies of the largest size may be there at once.
const LARGE_ONES: usize = 8;

/// How much is taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Room(Arc<AtomicUsize>);

/// The room of one body, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Room,
    taken: usize,
}

impl Room {
    pub(super) fn place(&self) -> Place {
        Place { room: self.clone(), taken: 0 }
    }
}

impl Place {
    /// Takes room for a body that is so long by now, of which the largest may have `largest`.
    pub(super) fn grow_to(&mut self, length: usize, largest: usize) -> Result<(), Refused> {
        let more = length.saturating_sub(SMALL).saturating_sub(self.taken);
        let before = self.room.0.fetch_add(more, Ordering::Relaxed);
        self.taken += more;
        if more > 0 && before + more > largest.saturating_mul(LARGE_ONES) {
            return Err(Refused::new(Why::Full));
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_have_their_share_and_small_ones_always_room() {
        const MEGABYTE: usize = 1024 * 1024;
        let room = Room::default();
        let taken: Vec<Place> = std::iter::repeat_with(|| room.place()).take(LARGE_ONES + 3).collect();
        let grown = taken.into_iter().map(|mut place| place.grow_to(MEGABYTE, MEGABYTE).map(|()| place));
        let grown: Vec<Result<Place, Refused>> = grown.collect();
        // Of each the first quarter is not counted.
        assert_eq!(grown.iter().filter(|place| place.is_ok()).count(), LARGE_ONES + 2);
        room.place().grow_to(SMALL, MEGABYTE).expect("there is room");
        drop(grown);
        room.place().grow_to(MEGABYTE, MEGABYTE).expect("it was given back");
    }
}
