//! A ring of items of any size, for any number of producers and consumers in any processes.
//!
//! `README.md` in this folder explains the protocol. In short: one robust lock for each end, one
//! word for each end that moves by one compare-and-swap, and nothing else that must be kept in step
//! with it. Whoever is killed, at any instruction, has put (or taken) its item or has not.

mod ends;
mod layout;
mod line;
mod patience;
mod spill;

use super::bytes::CopyOut;
use super::lock;
use super::memory::{Kind, Memory};
use super::nap::Nap;
use super::object::Object;
use super::owner::{self, Look};
use super::segment::Segment;
use crate::sys::clock::Deadline;
use crate::sys::memfd;
use crate::sys::spin::Spin;
use bytemuck::Pod;
use ends::{CLOSED, Moved, POLLED, Position, same_number};
use layout::{Generation, LAST, MAX_INLINE};
use line::{Content, IN_LINE, Line, MAX_IN_LINE};
use patience::Patience;
use spill::{Place, Places};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use layout::SPARE;

/// How long to look before the first sleep.
const LOOKING: Duration = Duration::from_micros(20);

/// So many lines ahead a producer has one fetched that consumers had: one item further would be too
/// late, if one is put right after the other.
const AHEAD: u64 = 4;

/// How much a ring may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// So many items, of any size.
    Items(u64),
    /// A mebibyte or two, and some large items: 64 MiB of them, or four.
    Bytes,
    /// What memory there is.
    Unlimited,
}

/// A handle of a ring.
#[derive(Debug)]
pub(crate) struct Ring {
    memory: Memory,
    room: Room,
    /// Where the other end was when it was last looked at: looking for each item would move its
    /// cache line each time. Never ahead of it.
    seen_tail: AtomicU64,
    seen_head: AtomicU64,
    with_tail: Patience,
    with_head: Patience,
}

impl Clone for Ring {
    fn clone(&self) -> Self {
        Self::of(self.memory.clone(), self.room)
    }
}

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
}

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

/// What a consumer does under the get lock, before it takes an item. What it gets it has only if
/// [`Ring::get`] says so: else somebody else may have taken it.
pub(crate) trait Receiving {
    /// Copies the bytes of the item, and runs no code of the user's. An error leaves the item where
    /// it is, unless it is one of the large ones, which are copied without the lock.
    fn copy(&mut self, bytes: &impl CopyOut) -> io::Result<()>;
    /// Fetches what came under this number; false if it is not there any more. All lower numbers are
    /// needed no longer.
    fn mail(&mut self, number: u64) -> bool;
    /// This item is about to be taken; it was not, if this is called again or nothing comes. An
    /// error leaves it where it is.
    fn taking(&mut self, _item: Next) -> io::Result<()> {
        Ok(())
    }
    /// The item that was taken was not there yet when it was asked for.
    fn waited(&mut self) {}
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
}

/// What happened to a ring so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) put: u64,
    pub(crate) taken: u64,
    pub(crate) lost: u64,
    /// Of those that were lost: with consumers that died copying them.
    pub(crate) lost_in_copy: u64,
    pub(crate) deaths: u64,
}

type Words = [AtomicU64; layout::TOLD / 8 + 1];

/// One of the locks is held.
struct Turn<'a> {
    word: &'a AtomicU64,
    me: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock::give_back(self.word, self.me);
    }
}

/// Why an item was not placed.
enum NotPlaced {
    /// There was no room while the head was this.
    NoRoom(u64),
    Closed,
}

/// What a wait for an item found.
enum Found {
    Item,
    Nothing,
    Closed,
    Over,
}

/// What became of one try to put an item.
enum Tried {
    Done(Put),
    /// There was no room while the head was this.
    NoRoom(u64),
}

/// What became of a wait for an end to move on.
enum Waited {
    /// Look again.
    Look,
    TimedOut,
    /// There is nobody to wait for.
    Over,
}

/// A wait for an end to move on: some looks, then sleeps.
struct Wait {
    spin: Spin,
    nap: Nap,
    deadline: Deadline,
}

impl Wait {
    #[cold]
    fn new(deadline: Deadline) -> Self {
        Self { spin: Spin::new(LOOKING), nap: Nap::new(deadline), deadline }
    }
}

fn damaged<T>() -> io::Result<T> {
    let what = "the shared memory of a queue is damaged: another process wrote to it";
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

impl Ring {
    /// Makes an empty ring.
    pub(crate) fn create(kind: Kind, room: Room) -> io::Result<Self> {
        let count = match room {
            Room::Items(limit) => limit,
            Room::Bytes => 0,
            Room::Unlimited => u64::MAX,
        };
        let there = Generation(0).at() + Generation(0).len();
        let memory = Memory::create_sparse(kind, count, there, layout::FILE)?;
        Ok(Self::of(memory, room))
    }

    /// The handle of a ring that was received.
    pub(crate) fn open(object: Arc<Object>, kind: Kind) -> io::Result<Self> {
        let there = Generation(0).at() + Generation(0).len();
        let memory = Memory::open_sparse(object, kind, there)?;
        let room = match memory.count() {
            0 => Room::Bytes,
            u64::MAX => Room::Unlimited,
            limit => Room::Items(limit),
        };
        Ok(Self::of(memory, room))
    }

    fn of(memory: Memory, room: Room) -> Self {
        Self {
            memory,
            room,
            seen_tail: AtomicU64::new(0),
            seen_head: AtomicU64::new(0),
            with_tail: Patience::new(),
            with_head: Patience::new(),
        }
    }

    /// The object.
    pub(crate) fn object(&self) -> &Arc<Object> {
        self.memory.object()
    }

    /// The memory, for words of those who use the ring: see [`SPARE`].
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How much it may hold.
    pub(crate) fn room(&self) -> Room {
        self.room
    }

    /// The words that are used all the time.
    #[inline]
    fn words(&self) -> &Words {
        self.memory.words(0)
    }

    #[inline]
    fn tail(&self) -> &AtomicU64 {
        &self.words()[layout::TAIL / 8]
    }

    #[inline]
    fn head(&self) -> &AtomicU64 {
        &self.words()[layout::HEAD / 8]
    }

    fn places(&self) -> Places<'_> {
        Places::new(&self.memory)
    }

    #[inline]
    fn segment(&self, generation: u32) -> io::Result<&Segment> {
        if generation > LAST {
            return damaged();
        }
        let layout = Generation(generation);
        self.memory.object().part(generation as usize, layout.at(), layout.len())
    }

    /// Puts an item, whose bytes are two parts one after the other, and waits for room until the
    /// deadline.
    ///
    /// # Errors
    /// `OutOfMemory` and its like if there is no memory for it; `InvalidData` if another process has
    /// damaged the ring.
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
        if place.is_none() {
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
        // An old look at the head may be from an earlier visit to this generation, of which lines are
        // left: only what was put since the ring came here can have been freed here.
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
                if wait.is_some() {
                    receiving.waited();
                }
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
        let head = self.head().load(Ordering::Acquire);
        if head & CLOSED != 0 || self.nothing_after(head).is_some() {
            return Ok(false);
        }
        let (at, line) = self.line_at(Position::of(head))?;
        let segment = self.segment(at.generation)?;
        receiving.taking(Next { number: at.number, tag: line.tag, len: line.len })?;
        let mut place = None;
        if let Content::Spilled(seat) = line.content {
            place = self.places().take(seat, at.number, line.len);
            if place.is_none() {
                return self.lose(at);
            }
        } else {
            receiving.copy(&Inside::of(segment, at, &line)?)?;
        }
        if line.mail != 0 && !receiving.mail(line.mail) {
            return self.lose(at);
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
            copied.inspect_err(|_| {
                self.memory.word(layout::LOST).fetch_add(1, Ordering::Relaxed);
            })?;
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
            self.memory.word(layout::LOST).fetch_add(1, Ordering::Relaxed);
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

    /// Takes one of the locks; `None` if the deadline passes.
    #[inline]
    fn turn(&self, at: usize, deadline: Deadline) -> Option<Turn<'_>> {
        let (word, me) = (&self.words()[at / 8], owner::me());
        match lock::try_take(word, me) {
            Some(None) => Some(Turn { word, me }),
            news => self.late_turn(at, me, news, deadline),
        }
    }

    /// As [`turn`](Self::turn), if somebody has the lock, or had it and died.
    #[cold]
    fn late_turn(
        &self,
        at: usize,
        me: u64,
        news: Option<lock::Taken>,
        deadline: Deadline,
    ) -> Option<Turn<'_>> {
        let word = &self.words()[at / 8];
        let news = match news {
            Some(news) => news,
            // Whoever has it does not wait for anything: also a try waits for its turn.
            None => lock::take(word, me, deadline.max(Deadline::after(TURN)))?,
        };
        let turn = Turn { word, me };
        if news.is_some() {
            self.memory.word(layout::DEATHS).fetch_add(1, Ordering::Relaxed);
            if at == layout::PUT_LOCK {
                let tail = Position::of(self.tail().load(Ordering::Acquire));
                self.places().give_up_orphans(tail);
            }
        }
        Some(turn)
    }

    /// Waits until the end is not as it was `seen`.
    #[cold]
    fn wait_for_change(
        &self,
        (end, patience): (&AtomicU64, &Patience),
        seen: u64,
        wait: &mut Wait,
        mut is_over: impl FnMut() -> bool,
    ) -> Waited {
        if !wait.deadline.passed() {
            let pauses = patience.pause();
            while wait.spin.again() {
                let now = end.load(Ordering::Relaxed);
                if now != seen {
                    patience.learn(pauses, ends::distance(seen, now));
                    return Waited::Look;
                }
            }
            patience.learn(pauses, 0);
        }
        if is_over() {
            return Waited::Over;
        }
        if wait.nap.is_over() {
            return Waited::TimedOut;
        }
        if ends::sleep(end, seen, &mut wait.nap) {
            self.look_for_dead(Look::Close);
        }
        match wait.nap.is_over() && end.load(Ordering::Relaxed) == seen {
            true => Waited::TimedOut,
            false => Waited::Look,
        }
    }

    /// Gives up places of dead processes.
    fn look_for_dead(&self, look: Look) {
        if self.places().are_used() {
            let head = || Position::of(self.head().load(Ordering::Acquire));
            while let Some(lost) = self.places().give_up_of_dead(look, head) {
                self.memory.word(layout::LOST_IN_COPY).fetch_add(lost.into(), Ordering::Relaxed);
            }
        }
    }

    /// The number of items.
    pub(crate) fn len(&self) -> u64 {
        let head = Position::of(self.head().load(Ordering::Acquire)).number;
        let tail = Position::of(self.tail().load(Ordering::Acquire)).number;
        tail.wrapping_sub(head) & ends::NUMBERS
    }

    /// Whether there is no item.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing can be put any more. What is there can be taken. Whether to ring the bell.
    pub(crate) fn close(&self) -> bool {
        let was = ends::raise(self.tail(), CLOSED);
        // Those who wait for room sleep at the head.
        ends::wake_all(self.head());
        was & POLLED != 0
    }

    /// Nothing can be put or taken any more. Whether to ring the bell.
    pub(crate) fn close_now(&self) -> bool {
        ends::raise(self.head(), CLOSED);
        self.close()
    }

    /// Wakes everybody who waits, to look at what is not in the ring: whether a peer is there.
    pub(crate) fn wake_all(&self) {
        ends::wake_all(self.head());
        ends::wake_all(self.tail());
    }

    /// Whether nothing can be put any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.tail().load(Ordering::Acquire) & CLOSED != 0
    }

    /// Whether a consumer would not have to wait: for an item, or for the end.
    pub(crate) fn is_readable(&self) -> bool {
        let closed = (self.tail().load(Ordering::Acquire) | self.head().load(Ordering::Acquire))
            & CLOSED
            != 0;
        closed || !self.is_empty()
    }

    /// Does something while no consumer takes an item; false if that is not possible soon.
    pub(crate) fn as_consumer(&self, run: impl FnOnce()) -> bool {
        let turn = self.turn(layout::GET_LOCK, Deadline::after(Duration::ZERO));
        turn.map(|_turn| run()).is_some()
    }

    /// How far the consumers are: another number whenever they have taken something, and never all
    /// ones. Asking often costs them time.
    pub(crate) fn progress(&self) -> u64 {
        // Relaxed: it is only compared.
        ends::position_of(self.head().load(Ordering::Relaxed))
    }

    /// Producers are to look whether anybody is there, when they next put an item.
    pub(crate) fn tell_producers(&self) {
        // Release: who finds it so finds what the caller did before.
        self.words()[layout::TOLD / 8].fetch_add(1, Ordering::Release);
    }

    /// How often producers were told to look.
    #[inline]
    pub(crate) fn told(&self) -> u64 {
        // Acquire: see above.
        self.words()[layout::TOLD / 8].load(Ordering::Acquire)
    }

    /// Whoever puts the next item is to ring the bell.
    pub(crate) fn poll_tail(&self) {
        ends::mark(self.tail(), POLLED);
    }

    /// What happened so far.
    pub(crate) fn counts(&self) -> Counts {
        self.look_for_dead(Look::Close);
        let count = |at| self.memory.word(at).load(Ordering::Relaxed);
        let lost_in_copy = count(layout::LOST_IN_COPY);
        let lost = count(layout::LOST).saturating_add(lost_in_copy);
        let (head, tail) = self.numbers();
        let deaths = count(layout::DEATHS);
        Counts { put: tail, taken: head.saturating_sub(lost), lost, lost_in_copy, deaths }
    }

    /// The numbers of the next item to be taken and of the next to be put, in this order.
    pub(crate) fn numbers(&self) -> (u64, u64) {
        let head = Position::of(self.head().load(Ordering::Acquire)).number;
        (head, Position::of(self.tail().load(Ordering::Acquire)).number)
    }

    /// Whether nothing can be taken any more, because the ring was closed at once.
    pub(crate) fn is_over(&self) -> bool {
        self.head().load(Ordering::Acquire) & CLOSED != 0
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
                let len = (line.len as usize).min(MAX_IN_LINE);
                (generation.line(at.number) + IN_LINE, len)
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

/// How long somebody who only tries waits for a lock that is never held for long.
const TURN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
