//! An end of a pipe, whatever its messages are.

use crate::channel::item::Copied;
use crate::channel::line;
use crate::error::Kind;
use crate::shm::bytes::CopyOut;
use crate::shm::memory;
use crate::shm::object::Object;
use crate::shm::ring::{Got, Next, Put, Receiving, Ring, Room, Sending};
use crate::sys::clock::{self, Deadline};
use crate::wire::handles::{self, Carried, Received};
use crate::wire::post::Post;
use crate::wire::travel::Handle;
use crate::{Error, Execution, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const KIND: memory::Kind = memory::Kind::new("multiproc-pipe");

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// An encoded value.
    Value,
    /// Bytes as they are.
    Raw,
}

impl What {
    const RAW: u8 = 1;

    fn tag(self) -> u8 {
        if self == Self::Raw { Self::RAW } else { 0 }
    }
}

/// One end: the ring that it writes to, the ring that it reads, or both, and its end of the socket
/// between the two sides.
///
/// As long as any process has a descriptor of the socket's other end, or one is on its way to
/// somewhere, there is another side. The kernel counts, so it does not matter how a process ends.
#[derive(Debug)]
pub(super) struct End {
    outward: Option<Ring>,
    inward: Option<Ring>,
    /// There until the end is dropped.
    post: Option<Post>,
    watch: Watch,
}

/// When the writing side last looked whether the other side is there.
#[derive(Debug, Default)]
struct Watch {
    /// How often readers that were dropped had said so then.
    told: AtomicU64,
    /// On the clock of [`clock::ticks`]; zero if the next look is due at once.
    looked: AtomicU64,
}

/// How long a look is good: 20 us at 2.5 GHz.
const FRESH: u64 = 50_000;

impl Watch {
    /// Whether to look now: if a reader says so, or if it was long ago.
    #[inline]
    fn is_due(&self, ring: &Ring) -> bool {
        let (told, now) = (ring.told(), clock::ticks());
        // Relaxed, all of them: a wrong answer is a look too many, or one a moment later.
        let is_fresh = now.wrapping_sub(self.looked.load(Ordering::Relaxed)) < FRESH;
        if is_fresh && told == self.told.load(Ordering::Relaxed) {
            return false;
        }
        self.told.store(told, Ordering::Relaxed);
        self.looked.store(now, Ordering::Relaxed);
        true
    }

    /// The next look is due at once: who has been told that nobody is there does not send in vain.
    fn look_again(&self) {
        self.looked.store(0, Ordering::Relaxed);
    }
}

/// A ring for one direction of a pipe, of messages of this shape.
pub(super) fn ring(shape: u64) -> io::Result<Ring> {
    Ring::create(KIND, shape, Room::Bytes)
}

/// As [`ring`], in an object that was received.
pub(super) fn open_ring(object: Arc<Object>, shape: u64) -> io::Result<Ring> {
    Ring::open(object, KIND, shape)
}

impl End {
    pub(super) fn new(outward: Option<Ring>, inward: Option<Ring>, post: Post) -> Arc<Self> {
        Arc::new(Self { outward, inward, post: Some(post), watch: Watch::default() })
    }

    fn post(&self) -> Result<&Post> {
        self.post.as_ref().ok_or_else(|| Error::invalid("an end of a pipe that was dropped"))
    }

    fn outward(&self) -> Result<&Ring> {
        self.outward.as_ref().ok_or_else(|| Error::invalid("an end of a pipe that only reads"))
    }

    fn inward(&self) -> Result<&Ring> {
        self.inward.as_ref().ok_or_else(|| Error::invalid("an end of a pipe that only writes"))
    }

    /// Sends a message, waiting for room until the deadline; false if there was none.
    #[inline]
    pub(super) fn send(
        &self,
        parts: [&[u8]; 2],
        what: What,
        carried: &Carried,
        deadline: Deadline,
    ) -> Result<bool> {
        let (ring, post) = (self.outward()?, self.post()?);
        if self.watch.is_due(ring) && post.is_hung_up() {
            self.watch.look_again();
            return Err(nobody_reads());
        }
        let mut out = Out { post, carried, tag: what.tag() };
        match ring.put(parts, &mut out, deadline) {
            Ok(Put::Done { rings }) => {
                if rings {
                    post.ring();
                }
                Ok(true)
            }
            Ok(Put::Full) => Ok(false),
            Ok(Put::TooLarge) => Err(line::too_large("the message was not sent", parts)),
            Ok(Put::Closed | Put::Over) => Err(nobody_reads()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(nobody_reads()),
            Err(error) => Err(Error::memory("the message was not sent", error)),
        }
    }

    /// Sends a message, waiting for room however long that is.
    #[inline]
    pub(super) fn send_all(&self, parts: [&[u8]; 2], what: What, carried: &Carried) -> Result<()> {
        // Without a deadline only a hostile peer could end the wait.
        while !self.send(parts, what, carried, Deadline::NEVER)? {}
        Ok(())
    }

    /// Receives a message of this kind, and of so many bytes at most, waiting for it until the
    /// deadline. What is not as wanted is left there.
    #[inline]
    pub(super) fn recv<C: Copied>(
        &self,
        what: What,
        max: usize,
        deadline: Deadline,
    ) -> Result<Option<(C, Option<Received>)>> {
        let (ring, post) = (self.inward()?, self.post()?);
        let mut inn = In { post, what, max, refusal: None, message: None, mail: None };
        match ring.get(&mut inn, deadline) {
            // It is there: the ring has had it copied.
            Ok(Got::Item) => Ok(inn.message.map(|message| (message, inn.mail))),
            Ok(Got::Empty) => Ok(None),
            Ok(Got::Closed | Got::Over) => {
                self.watch.look_again();
                Err(end_of_file())
            }
            Err(error) => {
                Err(inn.refusal.unwrap_or_else(|| Error::memory("no message was received", error)))
            }
        }
    }

    /// Whether a `recv` would have something to say at once, or has before the deadline.
    pub(super) fn poll(&self, deadline: Deadline) -> Result<bool> {
        let (ring, post) = (self.inward()?, self.post()?);
        Ok(ring.wait_until_readable(|| post.is_hung_up(), deadline))
    }

    /// Whether the other side is gone, in every process.
    pub(super) fn is_alone(&self) -> bool {
        let is_alone = self.post.as_ref().is_none_or(Post::is_hung_up);
        if is_alone {
            self.watch.look_again();
        }
        is_alone
    }

    /// Closes this end in this process, and tells who sleeps, here and there.
    pub(super) fn close(&self) -> Result<()> {
        let hung_up = self.post()?.hang_up();
        hung_up.map_err(|error| Error::os("the end of the pipe could not be closed", error))?;
        self.watch.look_again();
        self.tell();
        Ok(())
    }

    /// Whether this side is there has changed: who sleeps at the rings is to look.
    fn tell(&self) {
        if let Some(ring) = &self.outward {
            ring.wake_all();
        }
        if let Some(ring) = &self.inward {
            ring.tell_producers();
            ring.wake_all();
        }
    }

    /// How many messages are on the way to this end.
    pub(super) fn len(&self) -> usize {
        self.inward.as_ref().map_or(0, |ring| line::number(ring.len()))
    }

    /// The ring that is read, and the socket, for those who wait on descriptors.
    pub(super) fn readable(&self) -> Result<(&Ring, &Post)> {
        Ok((self.inward()?, self.post()?))
    }

    /// The parts: the ring that is written, the one that is read, the socket.
    pub(super) fn objects(&self) -> Vec<Arc<Object>> {
        let (outward, inward, post) = self.handles();
        [outward, inward, post].into_iter().flatten().map(|Handle(object)| object).collect()
    }

    /// The parts as they travel.
    fn handles(&self) -> (Option<Handle>, Option<Handle>, Option<Handle>) {
        let of = |object: &Arc<Object>| Handle(object.clone());
        (
            self.outward.as_ref().map(|ring| of(ring.object())),
            self.inward.as_ref().map(|ring| of(ring.object())),
            self.post.as_ref().map(|post| of(post.object())),
        )
    }

    pub(super) fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.handles().serialize(serializer)
    }

    /// The end that came; the shapes are those of the directions that it must have.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
        outward: Option<u64>,
        inward: Option<u64>,
    ) -> Result<Arc<Self>, D::Error> {
        type Parts = (Option<Handle>, Option<Handle>, Option<Handle>);
        let (out, inn, post): Parts = Deserialize::deserialize(from)?;
        let ring = |handle: Option<Handle>, shape: Option<u64>| match (handle, shape) {
            (None, None) => Ok(None),
            (Some(Handle(object)), Some(shape)) => open_ring(object, shape).map(Some),
            _ => Err(io::ErrorKind::InvalidData.into()),
        };
        match (ring(out, outward), ring(inn, inward), post) {
            (Ok(out), Ok(inn), Some(Handle(post))) => Ok(Self::new(out, inn, Post::open(post))),
            _ => Err(handles::refuse_decoding(
                "what came is no such end of a pipe, or one of other messages",
            )),
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // First the socket, then the news: whoever is woken finds that it is closed.
        drop(self.post.take());
        self.tell();
    }
}

#[cold]
fn nobody_reads() -> Error {
    Error::new(Kind::Closed, "the reading end of the pipe is gone: nothing was sent")
}

#[cold]
fn end_of_file() -> Error {
    let what = "the writing end of the pipe is gone, and everything that it sent has been received";
    Error::new(Kind::EndOfFile, what)
}

/// A message on its way out.
struct Out<'a> {
    post: &'a Post,
    carried: &'a Carried,
    tag: u8,
}

impl Sending for Out<'_> {
    fn has_mail(&self) -> bool {
        !self.carried.is_empty()
    }

    fn mail(&mut self, number: u64) -> io::Result<bool> {
        self.post.send(number, self.carried)
    }

    fn tag(&self) -> u8 {
        self.tag
    }

    fn is_over(&mut self) -> bool {
        self.post.is_hung_up()
    }
}

/// A message on its way in.
struct In<'a, C> {
    post: &'a Post,
    what: What,
    max: usize,
    refusal: Option<Error>,
    message: Option<C>,
    mail: Option<Received>,
}

impl<C: Copied> Receiving for In<'_, C> {
    #[inline]
    fn copy(&mut self, bytes: &impl CopyOut) -> io::Result<()> {
        self.message = Some(C::copied(bytes)?);
        Ok(())
    }

    fn mail(&mut self, number: u64) -> io::Result<bool> {
        self.mail = self.post.receive(number)?;
        Ok(self.mail.is_some())
    }

    fn taking(&mut self, next: Next) -> io::Result<()> {
        let refusal = if next.tag != self.what.tag() {
            let what = match self.what {
                What::Value => "the next message is raw bytes: receive it with recv_bytes",
                What::Raw => "the next message is a value: receive it with recv",
            };
            Error::new(Kind::Decode(Execution::Failed), what)
        } else if next.len > self.max as u64 {
            let (len, max) = (next.len, self.max);
            let what = format!("the next message has {len} bytes, and {max} are the maximum here");
            Error::new(Kind::TooLarge, what)
        } else {
            return Ok(());
        };
        self.refusal = Some(refusal);
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn is_over(&mut self) -> bool {
        self.post.is_hung_up()
    }
}
