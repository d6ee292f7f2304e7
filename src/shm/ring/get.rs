//! Taking an item: what is at the head, and the copy that its consumer gets.

use super::ends::{self, CLOSED, Position, same_number};
use super::layout::{self, Generation, LAST, MAX_INLINE};
use super::line::{Content, IN_LINE, Line, MAX_IN_LINE};
use super::turn::Turn;
use super::waiting::{Wait, Waited};
use super::{Ring, damaged};
use crate::shm::bytes::CopyOut;
use crate::shm::segment::Segment;
use crate::sys::clock::Deadline;
use crate::sys::memfd;
use bytemuck::Pod;
use std::io;
use std::sync::atomic::Ordering;

/// What became of an attempt to take an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// One was taken: [`Receiving`] has it.
    Item,
    /// There was none until the deadline.
    Empty,
    /// The ring is closed, and all has been taken.
    Closed,
    /// All has been taken, and nobody is there to put more: [`Receiving::is_over`].
    Over,
}

/// What a consumer does under the get lock, before it takes an item. What it gets it has only if
/// [`Ring::get`] says so: else somebody else may have taken it.
pub(crate) trait Receiving {
    /// Copies the bytes of the item, and runs no code of the user's. An error leaves the item where
    /// it is, unless it is one of the large ones, which are copied without the lock.
    fn copy(&mut self, bytes: &impl CopyOut) -> io::Result<()>;
    /// Fetches what came under this number; false if it is not there any more. All lower numbers
    /// are needed no longer. An error leaves it, and the item, where they are.
    fn mail(&mut self, number: u64) -> io::Result<bool>;
    /// This item is about to be taken; it was not, if this is called again or nothing comes. An
    /// error leaves it where it is.
    fn taking(&mut self, _item: Next) -> io::Result<()> {
        Ok(())
    }
    /// Asked before each sleep: whether there is nobody to wait for.
    fn is_over(&mut self) -> bool {
        false
    }
}

/// The item at the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    pub(crate) number: u64,
    pub(crate) tag: u8,
    /// In bytes.
    pub(crate) len: u64,
    /// Whether the last consumer died in its turn: it may have been about to take this item, too.
    pub(crate) is_after_death: bool,
}

/// What a wait for an item found.
enum Found {
    Item,
    Nothing,
    Closed,
    Over,
}

impl Ring {
    /// Takes an item, waiting for one until the deadline.
    ///
    /// # Errors
    /// `OutOfMemory` if there is none for the copy: the item is lost. `InvalidData` if another
    /// process has damaged the ring.
    #[inline]
    pub(crate) fn get<R: Receiving>(
        &self,
        receiving: &mut R,
        deadline: Deadline,
    ) -> io::Result<Got> {
        let mut wait = None;
        loop {
            match self.wait_for_item(&mut wait, deadline, || receiving.is_over()) {
                Found::Item => {}
                Found::Nothing => return Ok(Got::Empty),
                Found::Closed => return Ok(Got::Closed),
                Found::Over => return Ok(Got::Over),
            }
            let Some(turn) = self.turn(layout::GET_LOCK, deadline) else {
                return Ok(Got::Empty);
            };
            if self.take(turn, receiving)? {
                return Ok(Got::Item);
            }
            if deadline.passed() && self.is_empty() {
                return Ok(Got::Empty);
            }
        }
    }

    /// Waits until there is an item, or the end of all items, until the deadline; whether it came.
    pub(crate) fn wait_until_readable(
        &self,
        is_over: impl FnMut() -> bool,
        deadline: Deadline,
    ) -> bool {
        !matches!(self.wait_for_item(&mut None, deadline, is_over), Found::Nothing)
    }

    #[inline]
    fn wait_for_item(
        &self,
        wait: &mut Option<Wait>,
        deadline: Deadline,
        mut is_over: impl FnMut() -> bool,
    ) -> Found {
        let mut over = false;
        loop {
            // Relaxed: whoever has the lock looks again.
            let head = self.head().load(Ordering::Relaxed);
            if head & CLOSED != 0 {
                return Found::Closed;
            }
            let Some(tail) = self.nothing_after(head) else {
                return Found::Item;
            };
            if tail & CLOSED != 0 && same_number(head, tail) {
                return Found::Closed;
            }
            // What was put before the last producer went has been looked for after it had gone.
            if over {
                return Found::Over;
            }
            let wait = wait.get_or_insert_with(|| Wait::new(deadline));
            let end = (self.tail(), &self.with_tail);
            match self.wait_for_change(end, tail, wait, &mut is_over) {
                Waited::Look => {}
                Waited::TimedOut => return Found::Nothing,
                Waited::Over => over = true,
            }
        }
    }

    /// The tail, if there is no item after this head.
    #[inline]
    fn nothing_after(&self, head: u64) -> Option<u64> {
        let ahead = |tail: u64| {
            let count = Position::of(tail).number.wrapping_sub(Position::of(head).number);
            (1..1 << 55).contains(&(count & ends::NUMBERS))
        };
        // Acquire, here and below: the items before it are read next. Release: by any thread.
        if ahead(self.seen_tail.load(Ordering::Acquire)) {
            return None;
        }
        let tail = self.tail().load(Ordering::Acquire);
        self.seen_tail.store(tail, Ordering::Release);
        (!ahead(tail)).then_some(tail)
    }

    /// Takes the item at the head; false if another consumer took it, or it was lost.
    #[inline]
    fn take<R: Receiving>(&self, turn: Turn<'_>, receiving: &mut R) -> io::Result<bool> {
        // Acquire: the lock orders it, but that of a dead owner was not given back.
        let head = self.head().load(Ordering::Acquire);
        if head & CLOSED != 0 || self.nothing_after(head).is_some() {
            return Ok(false);
        }
        let (at, line) = self.line_at(Position::of(head))?;
        let segment = self.segment(at.generation)?;
        let (number, is_after_death) = (at.number, turn.is_after_death);
        receiving.taking(Next { number, tag: line.tag, len: line.len, is_after_death })?;
        if !matches!(line.content, Content::Spilled(_)) {
            receiving.copy(&Inside::of(segment, at, &line)?)?;
        }
        if line.mail != 0 && !receiving.mail(line.mail)? {
            return self.lose(at);
        }
        let mut place = None;
        // After the mail, because a place that is let go is not found again.
        if let Content::Spilled(seat) = line.content {
            place = self.places().take(seat, at.number, line.len);
            if place.is_none() {
                return self.lose(at);
            }
        }
        let Some(moved) = ends::advance(self.head(), at.next()) else {
            return Ok(false);
        };
        drop(turn);
        ends::wake(self.head(), moved);
        if let Some(place) = place {
            let copied = receiving.copy(&place);
            drop(place);
            // Who wants to put a large one may wait for the place.
            ends::wake_all(self.head());
            copied.inspect_err(|_| self.count(layout::LOST, 1))?;
        }
        Ok(true)
    }

    /// The line of the item at the head, wherever marks lead to.
    #[inline]
    fn line_at(&self, head: Position) -> io::Result<(Position, Line)> {
        let mut at = head;
        // A neighbour could make them lead in a circle.
        for _ in 0..2 * LAST {
            let line = Generation(at.generation).line(at.number);
            match Line::read(self.segment(at.generation)?, line) {
                Some(Line { number, content: Content::Moved(next), .. }) if number == at.number => {
                    at = self.follow(at, next)?;
                }
                Some(line) if line.number == at.number => return Ok((at, line)),
                _ => break,
            }
        }
        damaged()
    }

    /// Passes over an item of which a part is gone with a process that died.
    #[cold]
    fn lose(&self, at: Position) -> io::Result<bool> {
        if let Some(moved) = ends::advance(self.head(), at.next()) {
            ends::wake(self.head(), moved);
            self.count(layout::LOST, 1);
        }
        Ok(false)
    }

    /// Follows the producers into another generation. The memory of a large one is given back, but
    /// for the mark: somebody else may have to follow it.
    #[cold]
    fn follow(&self, at: Position, generation: u32) -> io::Result<Position> {
        if generation > LAST || generation == at.generation {
            return damaged();
        }
        let left = Generation(at.generation);
        if at.generation > layout::KEPT {
            const PAGE: usize = 4096;
            let mark = left.at() + left.line(at.number) / PAGE * PAGE;
            let fd = self.object().fd();
            memfd::release(fd, left.at(), mark - left.at());
            memfd::release(fd, mark + PAGE, left.at() + left.len() - mark - PAGE);
        }
        let next = Position { generation, ..at };
        ends::relocate(self.head(), next);
        Ok(next)
    }
}

/// The bytes of an item that is inside of a generation.
struct Inside<'a> {
    segment: &'a Segment,
    at: usize,
    len: usize,
}

impl<'a> Inside<'a> {
    /// Where the line says that they are, if that is possible.
    #[inline]
    fn of(segment: &'a Segment, at: Position, line: &Line) -> io::Result<Self> {
        let generation = Generation(at.generation);
        let (start, len) = match line.content {
            Content::Line => {
                if line.len > MAX_IN_LINE as u64 {
                    return damaged();
                }
                (generation.line(at.number) + IN_LINE, line.len as usize)
            }
            Content::Bytes(offset) => {
                let end = offset.checked_add(line.len);
                if end.is_none_or(|end| end > generation.bytes()) || line.len > MAX_INLINE as u64 {
                    return damaged();
                }
                (generation.bytes_at() + offset as usize, line.len as usize)
            }
            Content::Spilled(_) | Content::Moved(_) => return damaged(),
        };
        Ok(Self { segment, at: start, len })
    }
}

impl CopyOut for Inside<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn copy_out(&self, at: usize, target: &mut [u8]) -> io::Result<()> {
        self.segment.copy_out(self.at + at, target);
        Ok(())
    }

    fn copy_out_vec<N: Pod>(&self, at: usize, count: usize) -> io::Result<Vec<N>> {
        Ok(self.segment.copy_out_vec(self.at + at, count))
    }
}
