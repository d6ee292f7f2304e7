//! The socket beside a ring: for what cannot go through memory.
//!
//! Two things are sent through it: *mails*, with the objects that an item of the ring names, and
//! the *bell*, for those who wait on descriptors. With two ends it also tells when the processes
//! that have the other one are gone. Sending happens under the ring's put lock, but for bells;
//! receiving under its get lock. See `shm/ring/README.md`.

use super::handles::{self, Carried, Received};
use crate::shm::object::Object;
use crate::shm::ring::Sending;
use crate::sys::{fd, socket};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

const BELL: u8 = 0;
const MAIL: u8 = 1;
/// The first byte, then the number of the mail; then the numbers of the objects.
const HEADER: usize = 9;
/// How many messages that nobody needs are thrown away at a time: far more than a socket holds. A
/// neighbour that sends without end keeps nobody for ever.
const THROWN_AWAY: usize = 1 << 14;

/// One end of a socket beside a ring, or both.
#[derive(Clone, Debug)]
pub(crate) struct Post(Arc<Object>);

impl Post {
    /// A socket whose every holder sends and receives.
    pub(crate) fn to_self() -> io::Result<Self> {
        socket::to_self().map(Self::of)
    }

    /// A socket with two ends.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socket::pair()?;
        Ok((Self::of(one), Self::of(other)))
    }

    fn of(fd: std::os::fd::OwnedFd) -> Self {
        Self(Arc::new(Object::received(fd)))
    }

    /// The socket in an object that was received. If it is none, nothing comes through it.
    pub(crate) fn open(object: Arc<Object>) -> Self {
        Self(object)
    }

    /// The object.
    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.0
    }

    /// What becomes readable when the bell rings, a mail comes, or the other side is gone.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    /// Sends objects as the mail of this number; false while the socket is full. The caller has the
    /// put lock.
    pub(crate) fn send(&self, number: u64, carried: &Carried) -> io::Result<bool> {
        let mut bytes = vec![MAIL];
        bytes.extend_from_slice(&number.to_ne_bytes());
        for uid in handles::numbers(carried) {
            bytes.extend_from_slice(&uid.to_ne_bytes());
        }
        let fds: Vec<_> = handles::descriptors(carried).collect();
        socket::try_send(self.fd(), &bytes, &fds)
    }

    /// The objects in the mail of this number. `None` if it is gone. Bells and mails of lower
    /// numbers are thrown away. The caller has the get lock.
    ///
    /// # Errors
    /// `EMFILE` if this process can take no more descriptors: the mail is still there.
    pub(crate) fn receive(&self, number: u64) -> io::Result<Option<Received>> {
        if !self.skip_to(number) {
            return Ok(None);
        }
        let mut buffer = Vec::new();
        // A copy first: what a process cannot take is for others.
        let fds = match socket::try_peek(self.fd(), &mut buffer) {
            Ok(socket::Received::Message(_, fds)) => fds,
            Ok(socket::Received::Short(_)) => return Err(handles::no_descriptors()),
            _ => return Ok(None),
        };
        socket::discard(self.fd());
        let uids = buffer.get(HEADER..).unwrap_or_default().chunks_exact(8);
        let uids: Vec<u64> = uids.map(bytemuck::pod_read_unaligned).collect();
        Ok(Some(handles::receive(&uids, fds.into_iter()).collect()))
    }

    /// Throws away what is before the mail of this number; false if it is gone.
    fn skip_to(&self, number: u64) -> bool {
        for _ in 0..THROWN_AWAY {
            match self.next() {
                Some(Some(found)) if found >= number => return found == number,
                Some(_) if socket::discard(self.fd()) => {}
                _ => return false,
            }
        }
        false
    }

    /// What is next in the socket: a mail, of this number, or something else; `None` if nothing is.
    fn next(&self) -> Option<Option<u64>> {
        let mut header = [0; HEADER];
        let len = socket::look(self.fd(), &mut header)?;
        let is_mail = len == HEADER && header[0] == MAIL;
        Some(is_mail.then(|| bytemuck::pod_read_unaligned(&header[1..])))
    }

    /// Makes the socket readable at the other end.
    pub(crate) fn ring(&self) {
        // If it is full it is readable.
        let _ = socket::send(self.fd(), &[BELL], &[], false);
    }

    /// Throws away the bells that rang, up to the next mail. The caller has the get lock.
    pub(crate) fn quiet(&self) {
        for _ in 0..THROWN_AWAY {
            if !matches!(self.next(), Some(None)) || !socket::discard(self.fd()) {
                return;
            }
        }
    }

    /// Throws away all that came. There is no item in the ring, and the caller has both of its
    /// locks: so what is there is from somebody who died before it had put the item.
    pub(crate) fn clear(&self) {
        for _ in 0..THROWN_AWAY {
            if !socket::discard(self.fd()) {
                return;
            }
        }
    }

    /// Closes this end, as far as this process is concerned. Workers keep what they were sent until
    /// it is dropped here: this is as good as that.
    pub(crate) fn hang_up(&self) -> io::Result<()> {
        fd::hang_up(self.fd())?;
        self.0.forget_elsewhere();
        Ok(())
    }

    /// Whether nobody has the other end any more.
    pub(crate) fn is_hung_up(&self) -> bool {
        socket::is_hung_up(self.fd())
    }
}

/// Objects on their way into a ring.
#[derive(Debug)]
pub(crate) struct Outgoing<'a>(pub(crate) &'a Post, pub(crate) &'a Carried);

impl Sending for Outgoing<'_> {
    #[inline]
    fn has_mail(&self) -> bool {
        !self.1.is_empty()
    }

    fn mail(&mut self, number: u64) -> io::Result<bool> {
        self.0.send(number, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::object::Access;
    use crate::sys::eventually::eventually;

    fn objects(count: usize) -> Carried {
        (0..count).map(|_| Object::create("test", 64, Access::Shared).expect("object")).collect()
    }

    #[test]
    fn a_mail_comes_under_its_number_and_older_ones_are_thrown_away() {
        let (a, b) = Post::pair().expect("pair");
        for post in [(&a, &b), (&b, &a)] {
            let sent = objects(3);
            post.0.ring();
            assert!(post.0.send(1, &objects(1)).expect("send"));
            post.0.ring();
            assert!(post.0.send(5, &sent).expect("send"));
            let received = post.1.receive(5).expect("room").expect("it is there");
            let mut uids: Vec<u64> = received.keys().copied().collect();
            uids.sort_unstable();
            assert_eq!(uids, handles::numbers(&sent));
            assert!(post.1.receive(6).expect("room").is_none());
        }
    }

    #[test]
    fn the_last_mail_of_a_side_that_did_not_listen_comes() {
        let (a, b) = Post::pair().expect("pair");
        a.ring();
        assert!(b.send(1, &objects(2)).expect("send"));
        drop(b);
        // The kernel tells of the unread bell first.
        assert_eq!(a.receive(1).expect("room").expect("it is there").len(), 2);
    }

    #[test]
    fn a_mail_that_is_gone_leaves_the_next_one_there() {
        let post = Post::to_self().expect("socket");
        assert!(post.send(7, &objects(1)).expect("send"));
        assert!(post.receive(6).expect("room").is_none());
        assert_eq!(post.receive(7).expect("room").expect("it is there").len(), 1);
    }

    #[test]
    fn garbage_in_the_socket_is_passed_over() {
        let (a, b) = Post::pair().expect("pair");
        for garbage in [&[9][..], &[1, 2, 3], &[0xff; 40], &vec![1; socket::MAX_MESSAGE + 1]] {
            socket::send(a.fd(), garbage, &[], false).expect("send");
            assert!(a.send(3, &objects(1)).expect("send"));
            let received = b.receive(3).expect("room");
            assert!(received.is_some() || garbage[0] == 1, "{garbage:?}");
            while b.receive(u64::MAX).expect("room").is_some() {}
        }
    }

    #[test]
    fn bells_are_heard_and_quietened() {
        let (a, b) = Post::pair().expect("pair");
        assert!(!socket::is_readable(b.fd()).expect("poll"));
        a.ring();
        a.ring();
        assert!(socket::is_readable(b.fd()).expect("poll"));
        b.quiet();
        assert!(!socket::is_readable(b.fd()).expect("poll"));
        assert!(!b.is_hung_up());
        drop(a);
        eventually("it is hung up", || b.is_hung_up());
    }

    #[test]
    fn a_full_socket_refuses_and_is_no_error() {
        let post = Post::to_self().expect("socket");
        let mut number = 1;
        while post.send(number, &objects(1)).expect("send") {
            number += 1;
        }
        assert!(number > 10, "{number}");
        assert!(post.receive(number - 1).expect("room").is_some());
        assert!(post.send(number, &objects(1)).expect("send"));
    }
}
