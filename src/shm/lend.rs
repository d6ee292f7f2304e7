//! Lending a vector to other processes: what goes there, and what they see.
//!
//! The owner makes a [`Loan`]; its object travels as any other, and beside it go the access and the
//! number of bytes. There, [`chunk`] and [`chunk_mut`] give the elements of a part.
//!
//! The contract of a mutable loan: the owner is borrowed mutably until every borrower has finished;
//! each borrower has a part that no other one has; and who has finished, or was given up (killed),
//! never touches the part again.

use super::frozen::FrozenMemory;
use super::object::{Access, Object};
use super::segment::Segment;
use bytemuck::Pod;
use std::io;
use std::sync::Arc;

/// What a borrower needs.
#[derive(Clone, Debug)]
pub(crate) struct Loan {
    /// What travels.
    pub(crate) object: Arc<Object>,
    /// How the borrower maps it.
    pub(crate) access: Access,
    /// How many bytes the borrower maps: always the same for one object.
    pub(crate) bytes: usize,
}

impl Loan {
    /// Of memory that can only be read.
    pub(crate) fn of_frozen(memory: &FrozenMemory) -> Self {
        let object = memory.object().clone();
        Self { object, access: Access::Frozen, bytes: memory.len() }
    }
}

/// In the borrower: elements `start..start + count` of a loan, for reading.
///
/// # Errors
/// If the object is not what it should be, or the range is not inside.
///
/// # Safety
/// Until the slice ends, no process writes to the range. (`Access::Frozen` sees to that itself.)
pub(crate) unsafe fn chunk<T: Pod>(
    object: &Object,
    access: Access,
    bytes: usize,
    start: usize,
    count: usize,
) -> io::Result<&[T]> {
    let (segment, at, len) = range::<T>(object, access, bytes, start, count)?;
    // SAFETY: passed on from the caller.
    elements(bytemuck::try_cast_slice(unsafe { segment.bytes(at, len) }))
}

/// In the borrower: elements `start..start + count` of a loan with [`Access::Owned`].
///
/// # Errors
/// If the object is not what it should be, or the range is not inside.
///
/// # Safety
/// Until the slice ends, the caller has the range for itself: no other process and no other
/// reference of this one accesses it.
#[allow(clippy::mut_from_ref, reason = "exclusivity is the caller's to show")]
pub(crate) unsafe fn chunk_mut<T: Pod>(
    object: &Object,
    bytes: usize,
    start: usize,
    count: usize,
) -> io::Result<&mut [T]> {
    let (segment, at, len) = range::<T>(object, Access::Owned, bytes, start, count)?;
    // SAFETY: passed on from the caller; the mapping is writable, being `Owned`.
    elements(bytemuck::try_cast_slice_mut(unsafe { segment.bytes_mut(at, len) }))
}

/// The memory, and where the elements are in it, in bytes.
fn range<T>(
    object: &Object,
    access: Access,
    bytes: usize,
    start: usize,
    count: usize,
) -> io::Result<(&Segment, usize, usize)> {
    let segment = object.map(access, bytes)?;
    let at = start.checked_mul(size_of::<T>());
    let len = count.checked_mul(size_of::<T>());
    match (at, len) {
        (Some(at), Some(len)) if at.checked_add(len).is_some_and(|end| end <= bytes) => {
            Ok((segment, at, len))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "a part outside the lent memory")),
    }
}

fn elements<S>(cast: Result<S, bytemuck::PodCastError>) -> io::Result<S> {
    cast.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::owned::{Layout, OwnedMemory};
    use super::*;

    fn borrowed(loan: &Loan) -> Object {
        Object::received(loan.object.fd().try_clone_to_owned().expect("dup"))
    }

    #[test]
    fn a_borrower_changes_its_part_in_place() {
        let owner = OwnedMemory::create(80, Layout::PLAIN).expect("memory");
        let loan = owner.lend(80).expect("lend");
        let there = borrowed(&loan);
        // SAFETY: no other reference to the range exists during the statement.
        unsafe { chunk_mut::<u64>(&there, loan.bytes, 3, 2) }.expect("a part").fill(7);
        let seen: &[u64] = bytemuck::cast_slice(owner.slice::<u8>(80));
        assert_eq!(seen, [0, 0, 0, 7, 7, 0, 0, 0, 0, 0]);
        // SAFETY: nobody writes during the statement.
        let part = unsafe { chunk::<u64>(&there, loan.access, loan.bytes, 4, 2) }.expect("a part");
        assert_eq!(part, [7, 0]);
    }

    #[test]
    fn a_part_outside_and_a_frozen_one_for_writing_are_errors() {
        let owner = OwnedMemory::create(80, Layout::PLAIN).expect("memory");
        let loan = owner.lend(80).expect("lend");
        for (start, count) in [(0, 513), (513, 0), (usize::MAX, 2), (2, usize::MAX), (512, 1)] {
            let there = borrowed(&loan);
            // SAFETY: no reference results.
            unsafe { chunk_mut::<u64>(&there, loan.bytes, start, count) }.expect_err("outside");
        }
        owner.seal(80).expect("seal");
        let loan = owner.lend(80).expect("lend");
        assert_eq!(loan.access, Access::Frozen);
        let there = borrowed(&loan);
        // SAFETY: no reference results.
        unsafe { chunk_mut::<u64>(&there, loan.bytes, 0, 1) }.expect_err("frozen");
        // SAFETY: nobody can write to it.
        let part = unsafe { chunk::<u64>(&there, loan.access, loan.bytes, 0, 2) };
        assert_eq!(part.expect("a part"), [0, 0]);
    }
}
