//! Lockers: where the objects of items wait that are not taken in the order in which they were put.
//!
//! Descriptors can only wait in sockets, and a socket gives them out in the order in which they
//! came. So each item with objects has a socket for itself, its *locker*, with one message in it.
//! The lockers are in one socket, the *cabinet*, and never leave it: to open one is to look at the
//! message that it is in, which copies its descriptor (`SO_PEEK_OFF`; all entries have the same
//! length). There are as many as were ever in use at the same time; the kernel has room for some
//! two hundred.
//!
//! Which lockers are in use the store says (`shm/store`), under whose lock all of this happens.
//! What is in one that is not in use was left there by somebody who died, and is thrown away by the
//! next who fills it.

use super::handles::{self, Carried, Received};
use crate::shm::object::Object;
use crate::shm::store;
use crate::sys::socket;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The length of an entry of the cabinet.
const ENTRY: usize = 8;

/// A cabinet.
#[derive(Clone, Debug)]
pub(crate) struct Lockers(Arc<Object>);

impl Lockers {
    /// A cabinet without lockers.
    pub(crate) fn create() -> io::Result<Self> {
        socket::to_self().map(|fd| Self(Arc::new(Object::received(fd))))
    }

    /// The cabinet in an object that was received. If it is none, nothing is in it.
    pub(crate) fn open(object: Arc<Object>) -> Self {
        Self(object)
    }

    /// The object.
    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.0
    }

    /// A descriptor of the locker; `None` if there is none with this number.
    fn locker(&self, number: u32) -> io::Result<Option<OwnedFd>> {
        match socket::try_peek_at(self.0.fd(), number as usize * ENTRY, &mut Vec::new())? {
            socket::Received::Message(_, fds) => Ok(fds.into_iter().next()),
            socket::Received::Short(_) => Err(handles::no_descriptors()),
            socket::Received::Closed | socket::Received::Nothing => Ok(None),
        }
    }
}

impl store::Lockers for Lockers {
    type In = Carried;
    type Out = Received;

    fn fill(&self, number: u32, what: &Carried) -> io::Result<bool> {
        let locker = match self.locker(number)? {
            Some(locker) => locker,
            None => {
                let new = socket::to_self()?;
                if !socket::try_send(self.0.fd(), &[0; ENTRY], &[new.as_fd()])? {
                    return Ok(false);
                }
                // Whoever died here has left a locker for the next one.
                let missing = "the cabinet of a queue is damaged: another process took from it";
                let missing = io::Error::new(io::ErrorKind::InvalidData, missing);
                self.locker(number)?.ok_or(missing)?
            }
        };
        empty(&locker);
        let uids: Vec<u8> = handles::numbers(what).into_iter().flat_map(u64::to_ne_bytes).collect();
        socket::try_send(&locker, &uids, &handles::descriptors(what).collect::<Vec<_>>())
    }

    fn look(&self, number: u32) -> io::Result<Received> {
        let Some(locker) = self.locker(number)? else {
            return Ok(Received::new());
        };
        let mut uids = Vec::new();
        match socket::try_peek(&locker, &mut uids)? {
            socket::Received::Message(_, fds) => {
                let uids: Vec<u64> =
                    uids.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
                Ok(handles::receive(&uids, fds.into_iter()).collect())
            }
            socket::Received::Short(_) => Err(handles::no_descriptors()),
            socket::Received::Closed | socket::Received::Nothing => Ok(Received::new()),
        }
    }

    fn empty(&self, number: u32) {
        if let Ok(Some(locker)) = self.locker(number) {
            empty(&locker);
        }
    }
}

/// Throws away what is in a locker. A peer that goes on sending is not waited for.
fn empty(locker: &OwnedFd) {
    for _ in 0..1000 {
        if !socket::discard(locker) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::object::Access;
    use store::Lockers as _;

    fn objects(count: usize) -> Carried {
        (0..count).map(|_| Object::create("test", 64, Access::Shared).expect("object")).collect()
    }

    fn uids(received: &Received) -> Vec<u64> {
        let mut uids: Vec<u64> = received.keys().copied().collect();
        uids.sort_unstable();
        uids
    }

    #[test]
    fn what_is_in_a_locker_is_there_until_it_is_emptied() {
        let lockers = Lockers::create().expect("socket");
        let all: Vec<Carried> = (1..6).map(objects).collect();
        for (number, what) in (0..).zip(&all) {
            assert!(lockers.fill(number, what).expect("fill"));
        }
        for number in [3, 0, 4, 2, 1, 3] {
            let expected = handles::numbers(&all[number as usize]);
            assert_eq!(uids(&lockers.look(number).expect("look")), expected);
        }
        lockers.empty(3);
        assert!(lockers.look(3).expect("look").is_empty());
        assert_eq!(lockers.look(4).expect("look").len(), 5);
        let other = objects(2);
        assert!(lockers.fill(4, &other).expect("fill"), "what a dead one left is thrown away");
        assert_eq!(uids(&lockers.look(4).expect("look")), handles::numbers(&other));
    }

    #[test]
    fn a_locker_that_a_dead_one_left_is_used() {
        let lockers = Lockers::create().expect("socket");
        let orphan = socket::to_self().expect("socket");
        assert!(socket::try_send(lockers.0.fd(), &[0; ENTRY], &[orphan.as_fd()]).expect("send"));
        for number in 0..3 {
            assert!(lockers.fill(number, &objects(1)).expect("fill"));
            assert_eq!(lockers.look(number).expect("look").len(), 1);
        }
    }

    #[test]
    fn a_full_cabinet_refuses_and_an_emptied_one_of_somebody_else_is_an_error() {
        let lockers = Lockers::create().expect("socket");
        let mut number = 0;
        while lockers.fill(number, &objects(1)).expect("fill") {
            number += 1;
        }
        assert!(number > 50, "{number}");
        assert!(lockers.fill(number - 1, &objects(1)).expect("fill"));
        let raw = Lockers::create().expect("socket");
        assert!(raw.fill(7, &objects(1)).is_err(), "a hole in the numbers");
        assert!(raw.look(9).expect("nothing").is_empty());
        raw.empty(9);
    }

    #[test]
    fn garbage_in_the_cabinet_and_in_lockers_is_an_error_or_nothing() {
        let lockers = Lockers::create().expect("socket");
        socket::send(lockers.0.fd(), &[1; ENTRY], &[], false).expect("send");
        let (file, _other) = socket::pair().expect("pair");
        socket::send(lockers.0.fd(), &[1; 3], &[file.as_fd()], false).expect("send");
        for number in 0..3 {
            let _ = (lockers.fill(number, &objects(1)), lockers.look(number));
            lockers.empty(number);
        }
    }
}
