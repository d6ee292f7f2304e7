//! Putting an item: room at the tail, and the step to another generation.

use super::ends::{self, CLOSED, Moved, Position};
use super::layout::{self, Generation, LAST, MAX_INLINE, MAX_ITEM};
use super::line::{self, Content, IN_LINE, Line, MAX_IN_LINE};
use super::spill::Place;
use super::waiting::{Wait, Waited};
use super::{Ring, Room, damaged};
use crate::shm::owner::Look;
use crate::shm::segment::Segment;
use crate::sys::clock::Deadline;
use crate::sys::memfd;
use std::io;
use std::sync::atomic::Ordering;

/// So many lines ahead a producer has one fetched that consumers had: one item further would be too
/// late, if one is put right after the other.
const AHEAD: u64 = 4;

/// What became of an attempt to put an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is in; the flag says whether to ring the bell for those who poll.
    Done { rings: bool },
    /// There was no room until the deadline.
    Full,
    /// The ring is closed.
    Closed,
    /// Nobody is there to take it: [`Sending::is_over`].
    Over,
    /// No item may have so many bytes: [`MAX_ITEM`].
    TooLarge,
}

/// What a producer does under the put lock.
pub(crate) trait Sending {
    /// Whether something goes beside the item.
    fn has_mail(&self) -> bool;
    /// Sends what goes beside the item under this number; false while that is not possible.
    fn mail(&mut self, number: u64) -> io::Result<bool>;
    /// What the consumer is to know of the item.
    fn tag(&self) -> u8 {
        0
    }
    /// Asked before each sleep: whether there is nobody to wait for.
    fn is_over(&mut self) -> bool {
        false
    }
}

/// Why an item was not placed.
enum NotPlaced {
    /// There was no room while the head was this.
    NoRoom(u64),
    Closed,
}

/// What became of one try to put an item.
enum Tried {
    Done(Put),
    /// There was no room while the head was this.
    NoRoom(u64),
}

impl Ring {
    /// Puts an item, whose bytes are two parts one after the other, and waits for room until the
    /// deadline.
    ///
    /// # Errors
    /// `OutOfMemory` and its like if there is no memory for it; `InvalidData` if another process
    /// has damaged the ring.
    pub(crate) fn put<S: Sending>(
        &self,
        parts: [&[u8]; 2],
        sending: &mut S,
        deadline: Deadline,
    ) -> io::Result<Put> {
        let mut wait = None;
        let mut place = None;
        loop {
            let tried = if parts[0].len() + parts[1].len() <= MAX_INLINE {
                self.try_put(parts, None, sending, deadline)?
            } else {
                self.try_put_large(parts, &mut place, sending, deadline)?
            };
            let head = match tried {
                Tried::Done(put) => return Ok(put),
                Tried::NoRoom(head) => head,
            };
            let wait = wait.get_or_insert_with(|| Wait::new(deadline));
            let end = (self.head(), &self.with_head);
            match self.wait_for_change(end, head, wait, || sending.is_over()) {
                Waited::Look => {}
                Waited::TimedOut => return Ok(Put::Full),
                Waited::Over => return Ok(Put::Over),
            }
        }
    }

    /// Puts an item if there is room. A large one has its place already.
    #[inline]
    fn try_put<S: Sending>(
        &self,
        parts: [&[u8]; 2],
        place: Option<&Place<'_>>,
        sending: &mut S,
        deadline: Deadline,
    ) -> io::Result<Tried> {
        if let Some(refusal) = self.refusal() {
            return Ok(refusal);
        }
        let Some(turn) = self.turn(layout::PUT_LOCK, deadline) else {
            return Ok(Tried::Done(Put::Full));
        };
        let placed = self.place(parts, place, sending)?;
        drop(turn);
        Ok(match placed {
            Ok(moved) => {
                ends::wake(self.tail(), moved);
                Tried::Done(Put::Done { rings: moved.rings() })
            }
            Err(NotPlaced::Closed) => Tried::Done(Put::Closed),
            Err(NotPlaced::NoRoom(head)) => Tried::NoRoom(head),
        })
    }

    /// As [`try_put`](Self::try_put), of a large item; it gets its place, if there is one.
    #[cold]
    fn try_put_large<'a, S: Sending>(
        &'a self,
        parts: [&[u8]; 2],
        place: &mut Option<Place<'a>>,
        sending: &mut S,
        deadline: Deadline,
    ) -> io::Result<Tried> {
        if let Some(refusal) = self.refusal() {
            return Ok(refusal);
        }
        if parts[0].len() + parts[1].len() > MAX_ITEM {
            return Ok(Tried::Done(Put::TooLarge));
        }
        if place.is_none() {
            // Relaxed: it is only compared.
            let head = self.head().load(Ordering::Relaxed);
            *place = self.places().fill(parts, self.room)?;
            if place.is_none() {
                // Who only tries never sleeps, and would never look.
                self.look_for_dead(Look::Close);
                return Ok(Tried::NoRoom(head));
            }
        }
        let tried = self.try_put(parts, place.as_ref(), sending, deadline)?;
        if matches!(tried, Tried::Done(Put::Done { .. }))
            && let Some(place) = place.take()
        {
            place.leave();
        }
        Ok(tried)
    }

    /// Why nothing can be put now, as far as can be seen without the lock.
    #[inline]
    fn refusal(&self) -> Option<Tried> {
        // Relaxed: whoever has the lock looks again.
        let tail = self.tail().load(Ordering::Relaxed);
        if tail & CLOSED != 0 {
            return Some(Tried::Done(Put::Closed));
        }
        self.limit_reached(Position::of(tail)).map(Tried::NoRoom)
    }

    /// The head, if no more items are allowed in.
    #[inline]
    fn limit_reached(&self, tail: Position) -> Option<u64> {
        let Room::Items(limit) = self.room else { return None };
        // Acquire: see `look_at_head`.
        let count = |head: u64| tail.number.wrapping_sub(Position::of(head).number) & ends::NUMBERS;
        if count(self.seen_head.load(Ordering::Acquire)) < limit {
            return None;
        }
        let head = self.look_at_head();
        // A head beyond the tail: the tail was read before.
        (limit..1 << 55).contains(&count(head)).then_some(head)
    }

    fn look_at_head(&self) -> u64 {
        // Acquire: what the consumers have read is read before it is written again.
        let head = self.head().load(Ordering::Acquire);
        // Release: other threads may count on what this one has seen.
        self.seen_head.store(head, Ordering::Release);
        head
    }

    /// Writes an item where the tail is, and moves the tail on. The caller has the put lock.
    #[inline]
    fn place<S: Sending>(
        &self,
        parts: [&[u8]; 2],
        spilled: Option<&Place<'_>>,
        sending: &mut S,
    ) -> io::Result<Result<Moved, NotPlaced>> {
        // Acquire: the lock orders it, but that of a dead owner was not given back.
        let tail = self.tail().load(Ordering::Acquire);
        if tail & CLOSED != 0 {
            return Ok(Err(NotPlaced::Closed));
        }
        let tail = Position::of(tail);
        if let Some(head) = self.limit_reached(tail) {
            return Ok(Err(NotPlaced::NoRoom(head)));
        }
        let len = parts[0].len() + parts[1].len();
        let inline = if spilled.is_some() { 0 } else { len };
        let has_mail = sending.has_mail();
        let spot = match self.find_room(tail, inline, has_mail)? {
            Ok(spot) => spot,
            Err(head) => return Ok(Err(NotPlaced::NoRoom(head))),
        };
        let mail = if has_mail { self.next_mail() } else { 0 };
        if has_mail && !sending.mail(mail)? {
            return Ok(Err(NotPlaced::NoRoom(self.look_at_head())));
        }
        let content = match spilled {
            Some(place) => {
                place.number(spot.at.number);
                Content::Spilled(place.seat())
            }
            None => spot.fill(parts),
        };
        let ahead = spot.at.number.wrapping_add(AHEAD);
        spot.segment.expect_write(spot.generation().line(ahead));
        let (number, tag) = (spot.at.number, sending.tag());
        let line = Line { number, tag, len: len as u64, end: spot.end, mail, content };
        line.write(spot.segment, spot.generation().line(spot.at.number));
        match ends::advance(self.tail(), spot.at.next()) {
            Some(moved) => Ok(Ok(moved)),
            None => {
                spilled.inspect(|place| place.take_back());
                Ok(Err(NotPlaced::Closed))
            }
        }
    }

    /// The number of the next mail. The caller has the put lock.
    #[cold]
    fn next_mail(&self) -> u64 {
        // Relaxed: under the put lock.
        let mails = self.memory.word(layout::MAILS);
        let number = mails.load(Ordering::Relaxed).wrapping_add(1).max(1);
        mails.store(number, Ordering::Relaxed);
        number
    }

    /// Room for the next item, in this generation or, if the ring may grow, in another; else the
    /// head while there was none.
    #[inline]
    fn find_room(
        &self,
        tail: Position,
        len: usize,
        has_mail: bool,
    ) -> io::Result<Result<Spot<'_>, u64>> {
        let in_line = len <= MAX_IN_LINE && !has_mail;
        let segment = self.segment(tail.generation)?;
        // Acquire: see `look_at_head`.
        let head = self.seen_head.load(Ordering::Acquire);
        if tail.generation <= layout::KEPT
            && let Some(spot) = self.spot(segment, tail, head, len, in_line)
        {
            return Ok(Ok(spot));
        }
        self.look_for_room(segment, tail, len, in_line)
    }

    /// As [`find_room`](Self::find_room), with a new look at the head.
    #[cold]
    fn look_for_room<'a>(
        &'a self,
        segment: &'a Segment,
        tail: Position,
        len: usize,
        in_line: bool,
    ) -> io::Result<Result<Spot<'a>, u64>> {
        let head = self.look_at_head();
        let at_head = Position::of(head);
        if tail.generation > layout::KEPT && at_head == tail {
            return self.relocate(tail, layout::SETTLED, len, in_line).map(Ok);
        }
        if let Some(spot) = self.spot(segment, tail, head, len, in_line) {
            return Ok(Ok(spot));
        }
        let largest = if self.room == Room::Bytes { layout::SETTLED } else { LAST };
        // The consumers may still be in a larger one, since the ring was empty.
        let is_there = |next: u32| next == at_head.generation && next != tail.generation;
        let next = (tail.generation + 1..=largest)
            .find(|&next| !is_there(next) && Generation(next).suits(len));
        match next {
            Some(next) => self.relocate(tail, next, len, in_line).map(Ok),
            // It fits when the ring is empty, since the largest generation suits all.
            None => Ok(Err(head)),
        }
    }

    /// Goes on in another, empty generation.
    #[cold]
    fn relocate(
        &self,
        tail: Position,
        generation: u32,
        len: usize,
        in_line: bool,
    ) -> io::Result<Spot<'_>> {
        let next = Generation(generation);
        memfd::reserve(self.object().fd(), next.at(), next.len())?;
        let segment = self.segment(generation)?;
        let here = self.segment(tail.generation)?;
        let mark = Line {
            number: tail.number,
            tag: 0,
            len: 0,
            end: 0,
            mail: 0,
            content: Content::Moved(generation),
        };
        mark.write(here, Generation(tail.generation).line(tail.number));
        let at = Position { generation, ..tail };
        // Before the tail is there: whoever dies in between makes others look at the head, no more.
        // Relaxed: under the put lock.
        self.memory.word(layout::ENTERED).store(tail.number, Ordering::Relaxed);
        ends::relocate(self.tail(), at);
        // No item is at its head.
        let head = self.look_at_head();
        match self.spot(segment, at, head, len, in_line) {
            Some(spot) => Ok(spot),
            None => damaged(),
        }
    }

    /// Room at the tail; one line stays free for the mark that leads to another generation.
    #[inline]
    fn spot<'a>(
        &self,
        segment: &'a Segment,
        tail: Position,
        head: u64,
        len: usize,
        in_line: bool,
    ) -> Option<Spot<'a>> {
        let generation = Generation(tail.generation);
        let head = Position::of(head);
        let is_free = |number: u64| {
            let before = number.wrapping_sub(generation.lines()) & ends::NUMBERS;
            let taken = head.number.wrapping_sub(before).wrapping_sub(1) & ends::NUMBERS;
            taken < 1 << 55 || !line::is_for(segment, generation.line(number), before)
        };
        let next = tail.next().number;
        // So few since the head that the items before them in their lines have been taken.
        let are_free = next.wrapping_sub(head.number) & ends::NUMBERS < generation.lines();
        if !are_free && (!is_free(tail.number) || !is_free(next)) {
            return None;
        }
        let used_by = |number: u64| {
            line::end_of(segment, generation.line(number), number).unwrap_or_default()
        };
        let used = used_by(tail.number.wrapping_sub(1) & ends::NUMBERS);
        if in_line {
            return Some(Spot { segment, at: tail, start: None, end: used });
        }
        let (size, need) = (generation.bytes(), len.next_multiple_of(8) as u64);
        if need > size {
            return None;
        }
        let mut start = used;
        if start % size + need > size {
            start = start.checked_next_multiple_of(size)?;
        }
        // An old look at the head may be from an earlier visit to this generation, of which lines
        // are left: only what was put since the ring came here can have been freed here.
        // Relaxed: under the put lock.
        let entered = self.memory.word(layout::ENTERED).load(Ordering::Relaxed);
        let is_here = head.generation == tail.generation
            && head.number.wrapping_sub(entered) & ends::NUMBERS < 1 << 55;
        let freed = if is_here { used_by(head.number.wrapping_sub(1) & ends::NUMBERS) } else { 0 };
        let end = start.checked_add(need)?;
        (end.wrapping_sub(freed) <= size).then_some(Spot {
            segment,
            at: tail,
            start: Some(start % size),
            end,
        })
    }
}

/// Where the next item goes.
struct Spot<'a> {
    segment: &'a Segment,
    at: Position,
    /// Where in the bytes, unless it fits the line.
    start: Option<u64>,
    end: u64,
}

impl Spot<'_> {
    fn generation(&self) -> Generation {
        Generation(self.at.generation)
    }

    /// Writes the bytes of the item.
    #[inline]
    fn fill(&self, parts: [&[u8]; 2]) -> Content {
        let (at, content) = match self.start {
            None => (self.generation().line(self.at.number) + IN_LINE, Content::Line),
            Some(start) => (self.generation().bytes_at() + start as usize, Content::Bytes(start)),
        };
        self.segment.copy_in(at, parts[0]);
        self.segment.copy_in(at + parts[0].len(), parts[1]);
        content
    }
}
