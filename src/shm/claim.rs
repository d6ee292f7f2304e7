//! Who owns which item: the claim word.
//!
//! The parent posts frames, numbered from 0; each holds one or more items. One word says how far
//! they are claimed. The worker moves it over one item at a time, before it runs the item; the
//! parent moves it to the end of everything posted, to take back what is not claimed. Whoever
//! moves the word over an item owns that item, so each is run once or taken back once.

use super::atomic::Word64;
use std::sync::atomic::Ordering;

/// A place between items: `item` items of frame `frame` are claimed, and all frames before it.
///
/// Frame numbers wrap; at most a ring's length of frames is ever outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) frame: u32,
    pub(crate) item: u32,
}

impl Position {
    /// The start of a frame.
    pub(crate) fn start_of(frame: u32) -> Self {
        Self { frame, item: 0 }
    }

    fn pack(self) -> u64 {
        u64::from(self.frame) << 32 | u64::from(self.item)
    }

    fn unpack(word: u64) -> Self {
        Self { frame: (word >> 32) as u32, item: word as u32 }
    }
}

/// The current position.
pub(crate) fn position(word: &impl Word64) -> Position {
    // Acquire: pairs with the move that put the word there.
    Position::unpack(word.load(Ordering::Acquire))
}

/// The worker claims the item at `at`, in a frame of `items` items.
///
/// # Errors
/// The position found instead, if the parent took the item back.
pub(crate) fn claim(word: &impl Word64, at: Position, items: u32) -> Result<(), Position> {
    let next = match at.item + 1 {
        item if item < items => Position { frame: at.frame, item },
        _ => Position::start_of(at.frame.wrapping_add(1)),
    };
    word.compare_exchange(at.pack(), next.pack()).map(drop).map_err(Position::unpack)
}

/// The parent takes back everything from the current position to the start of frame `tail`, and
/// returns where that begins.
pub(crate) fn revoke(word: &impl Word64, tail: u32) -> Position {
    let target = Position::start_of(tail).pack();
    let mut current = word.load(Ordering::Acquire);
    loop {
        match word.compare_exchange(current, target) {
            Ok(_) => return Position::unpack(current),
            Err(now) => current = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, AtomicU64};
    use loom::thread;

    /// Two frames of two items each; the worker runs what it can claim, the parent takes the rest
    /// back in the middle. In every interleaving each item is run once or returned once.
    #[test]
    fn model_each_item_is_run_once_or_taken_back_once() {
        const ITEMS: u32 = 2;
        const FRAMES: u32 = 2;
        loom::model(|| {
            let word = Arc::new(AtomicU64::new(0));
            let run: Arc<Vec<AtomicU32>> =
                Arc::new((0..FRAMES * ITEMS).map(|_| AtomicU32::new(0)).collect());
            let worker = {
                let (word, run) = (word.clone(), run.clone());
                thread::spawn(move || {
                    let mut at = Position::start_of(0);
                    while at.frame < FRAMES {
                        match claim(&*word, at, ITEMS) {
                            Ok(()) => {
                                let index = at.frame * ITEMS + at.item;
                                run[index as usize].fetch_add(1, Ordering::Relaxed);
                                at.item += 1;
                                if at.item == ITEMS {
                                    at = Position::start_of(at.frame + 1);
                                }
                            }
                            Err(now) => at = now,
                        }
                    }
                })
            };
            let first = revoke(&*word, FRAMES);
            worker.join().expect("worker");
            for index in first.frame * ITEMS + first.item..FRAMES * ITEMS {
                run[index as usize].fetch_add(1, Ordering::Relaxed);
            }
            assert!(run.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        });
    }

    #[test]
    fn frame_numbers_wrap() {
        let word = std::sync::atomic::AtomicU64::new(Position::start_of(u32::MAX).pack());
        claim(&word, Position::start_of(u32::MAX), 1).expect("claim");
        assert_eq!(position(&word), Position::start_of(0));
    }
}
