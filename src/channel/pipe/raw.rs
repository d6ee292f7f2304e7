//! A pipe of bytes and objects, for those in this crate that speak a protocol of their own.

use super::end::{End, What};
use crate::error::Kind;
use crate::shm::bytes::Bytes;
use crate::shm::object::Object;
use crate::sys::clock::Deadline;
use crate::wire::handles::{Carried, Received};
use crate::wire::post::Post;
use crate::{Error, Result};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// What tells such a ring from one of typed messages.
const SHAPE: u64 = 0x006d_756c_7469_7072;

/// One end of a duplex pipe.
#[derive(Debug)]
pub(crate) struct RawEnd(Arc<End>);

impl RawEnd {
    /// A new pipe: both its ends.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (there, back) = (super::end::ring(SHAPE)?, super::end::ring(SHAPE)?);
        let (ours, theirs) = Post::pair()?;
        let one = End::new(Some(there.clone()), Some(back.clone()), ours);
        Ok((Self(one), Self(End::new(Some(back), Some(there), theirs))))
    }

    /// The objects of which the end consists, in the order in which [`open`](Self::open) takes
    /// them.
    pub(crate) fn objects(&self) -> Vec<Arc<Object>> {
        self.0.objects()
    }

    /// The end that consists of these objects; what they are is checked.
    pub(crate) fn open([outward, inward, post]: [Arc<Object>; 3]) -> io::Result<Self> {
        let (outward, inward) =
            (super::end::open_ring(outward, SHAPE)?, super::end::open_ring(inward, SHAPE)?);
        Ok(Self(End::new(Some(outward), Some(inward), Post::open(post))))
    }

    /// Sends bytes and objects; waits while the pipe is full.
    ///
    /// # Errors
    /// [`Error::is_closed`] if the other side is gone, and as
    /// [`PipeEnd::send`](super::PipeEnd::send).
    #[inline]
    pub(crate) fn send(&self, bytes: &[u8], carried: &Carried) -> Result<()> {
        self.0.send_all([bytes, &[]], What::Raw, carried)
    }

    /// Waits for what the other side sends.
    ///
    /// # Errors
    /// [`Error::is_end_of_file`] if it is gone.
    #[inline]
    pub(crate) fn recv(&self) -> Result<(Bytes, Received)> {
        let message = self.recv_until(Deadline::NEVER)?;
        message.ok_or_else(|| Error::new(Kind::EndOfFile, "a wait without a deadline ended"))
    }

    /// As [`recv`](Self::recv), but `None` if nothing came until the deadline.
    #[inline]
    pub(crate) fn recv_until(&self, deadline: Deadline) -> Result<Option<(Bytes, Received)>> {
        let message = self.0.recv(What::Raw, usize::MAX, deadline)?;
        Ok(message.map(|(bytes, received)| (bytes, received.unwrap_or_default())))
    }

    /// Whether something can be received, if only that the other side is gone.
    pub(crate) fn is_readable(&self) -> bool {
        self.0.readable().map_or(true, |(ring, post)| ring.is_readable() || post.is_hung_up())
    }

    /// Sees to it that the [socket](Self::socket) is readable once something can be received; false
    /// if something can be already. Nobody else must receive meanwhile.
    pub(crate) fn arm(&self) -> bool {
        let Ok((ring, post)) = self.0.readable() else { return false };
        // Bells of earlier times would ring for nothing.
        ring.as_consumer(|| post.quiet());
        // Who puts something from here on rings; what was put before that is seen by the look.
        ring.poll_tail();
        !self.is_readable()
    }

    /// Whether nobody has the other end any more.
    pub(crate) fn is_alone(&self) -> bool {
        self.0.is_alone()
    }

    /// The socket, whose other end tells whether this one is there.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.0.readable().ok().map(|(_, post)| post.fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::eventually::eventually;

    #[test]
    fn bytes_and_objects_come_through_an_end_that_was_put_together_again() {
        let (here, there) = RawEnd::pair().expect("a pipe");
        let objects = <[Arc<Object>; 3]>::try_from(there.objects()).expect("three");
        let again = RawEnd::open(objects).expect("the same end");
        drop(there);
        let carried =
            vec![Object::create("test", 64, crate::shm::object::Access::Shared).expect("object")];
        here.send(b"hello", &carried).expect("send");
        let (bytes, received) = again.recv().expect("recv");
        assert_eq!((bytes.as_slice(), received.len()), (&b"hello"[..], 1));
        again.send(&[], &Carried::new()).expect("send");
        assert_eq!(here.recv().expect("recv").0.as_slice(), b"");
        assert!(!here.is_alone());
        drop(again);
        eventually("the other end is gone", || here.is_alone());
        assert!(here.recv().expect_err("gone").is_end_of_file());
    }

    #[test]
    fn an_end_that_is_armed_hears_of_what_comes_whenever_it_comes() {
        let (here, there) = RawEnd::pair().expect("a pipe");
        let sender = std::thread::spawn(move || {
            for number in 0..20_000u32 {
                // Sometimes before the other side is armed, sometimes after that.
                for _ in 0..number % 97 * 8 {
                    std::hint::spin_loop();
                }
                here.send(&number.to_ne_bytes(), &Carried::new()).expect("send");
                here.recv().expect("the answer");
            }
        });
        for number in 0..20_000u32 {
            if there.arm() {
                let socket = there.socket().expect("a socket");
                let deadline = Deadline::after(std::time::Duration::from_secs(60));
                assert!(crate::sys::socket::wait_readable(socket, deadline).expect("poll"));
                assert!(there.is_readable(), "the bell rings when it is there");
            }
            let (bytes, _) = there.recv().expect("recv");
            assert_eq!(bytes.as_slice(), number.to_ne_bytes());
            there.send(&[], &Carried::new()).expect("send");
        }
        sender.join().expect("no panic");
        let deadline = Deadline::after(std::time::Duration::from_secs(60));
        let socket = there.socket().expect("a socket");
        assert!(crate::sys::socket::wait_readable(socket, deadline).expect("poll"));
        assert!(!there.arm() && there.is_readable(), "the other side is gone");
    }

    #[test]
    fn what_is_no_end_is_refused() {
        let (here, _there) = RawEnd::pair().expect("a pipe");
        let mut objects = here.objects();
        objects.rotate_left(1);
        let objects = <[Arc<Object>; 3]>::try_from(objects).expect("three");
        assert!(RawEnd::open(objects).is_err());
    }
}
