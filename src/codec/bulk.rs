//! The types that are copied as they are: numbers, and vectors of them.

use super::sink::{Reader, Sink};
use crate::shm::bytes::CopyOut;
use bytemuck::Pod;
use std::any::{Any, TypeId};
use std::io;

/// Runs the body with `$n` naming each number type in turn. The comparison of type ids in the
/// body is decided when `T` is known, so only the branch for `T` is left in the program.
macro_rules! for_each_number {
    ($n:ident => $body:block) => {
        for_each_number!(@ $n $body u64 i64 f64 u32 i32 f32 u8 i8 u16 i16 u128 i128 usize isize)
    };
    (@ $n:ident $body:block $($number:ty)*) => {$({
        type $n = $number;
        $body
    })*};
}

fn is<T: 'static, U: 'static>() -> bool {
    TypeId::of::<T>() == TypeId::of::<U>()
}

/// Whether values of this type are copied as they are.
#[inline]
pub(super) fn is_bulk<T: 'static>() -> bool {
    for_each_number!(N => {
        if is::<T, N>() || is::<T, Vec<N>>() {
            return true;
        }
    });
    false
}

/// Encodes `value` if its type is a bulk type: `None` if it is not, else whether it fitted.
#[inline]
pub(super) fn put<T: 'static>(value: &T, sink: &mut impl Sink) -> Option<bool> {
    for_each_number!(N => {
        if is::<T, N>() && let Some(number) = (value as &dyn Any).downcast_ref::<N>() {
            return Some(sink.put(bytemuck::bytes_of(number)));
        }
        if is::<T, Vec<N>>() && let Some(all) = (value as &dyn Any).downcast_ref::<Vec<N>>() {
            let header = sink.put(&(all.len() as u64).to_ne_bytes());
            return Some(header && sink.put(bytemuck::cast_slice(all)));
        }
    });
    None
}

/// The encoded length of every `T`, if `T` is a number.
#[inline]
pub(super) fn fixed_len<T: 'static>() -> Option<usize> {
    for_each_number!(N => {
        if is::<T, N>() {
            return Some(size_of::<N>());
        }
    });
    None
}

/// The encoded length of a bulk value, without encoding it.
#[inline]
pub(super) fn len<T: 'static>(value: &T) -> Option<usize> {
    for_each_number!(N => {
        if is::<T, N>() {
            return Some(size_of::<N>());
        }
        if is::<T, Vec<N>>() && let Some(all) = (value as &dyn Any).downcast_ref::<Vec<N>>() {
            return Some(8 + size_of_val(all.as_slice()));
        }
    });
    None
}

/// The encoding of a bulk value in two parts, without a copy of the second: `None` if `T` is no
/// bulk type.
#[inline]
pub(crate) fn parts<T: 'static>(value: &T) -> Option<(Header, &[u8])> {
    for_each_number!(N => {
        if is::<T, N>() && let Some(number) = (value as &dyn Any).downcast_ref::<N>() {
            return Some((Header(None), bytemuck::bytes_of(number)));
        }
        if is::<T, Vec<N>>() && let Some(all) = (value as &dyn Any).downcast_ref::<Vec<N>>() {
            let header = Header(Some((all.len() as u64).to_ne_bytes()));
            return Some((header, bytemuck::cast_slice(all)));
        }
    });
    None
}

/// What stands before the numbers of a bulk value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header(Option<[u8; 8]>);

impl Header {
    /// Its bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |bytes| bytes)
    }
}

/// Decodes a `T` if it is a bulk type: `None` if it is not, else the value if the bytes were
/// there.
#[inline]
pub(super) fn take<T: 'static>(reader: &mut Reader<'_>) -> Option<Option<T>> {
    let mut value: Option<T> = None;
    for_each_number!(N => {
        if is::<T, N>()
            && let Some(slot) = (&mut value as &mut dyn Any).downcast_mut::<Option<N>>()
        {
            *slot = reader.take(size_of::<N>()).map(bytemuck::pod_read_unaligned);
            return Some(value);
        }
        if is::<T, Vec<N>>()
            && let Some(slot) = (&mut value as &mut dyn Any).downcast_mut::<Option<Vec<N>>>()
        {
            *slot = take_vec(reader);
            return Some(value);
        }
    });
    None
}

fn take_vec<N: Pod>(reader: &mut Reader<'_>) -> Option<Vec<N>> {
    let header: u64 = reader.take(8).map(bytemuck::pod_read_unaligned)?;
    let count = usize::try_from(header).ok()?;
    // The bytes are there before memory is reserved for them.
    let bytes = reader.take(count.checked_mul(size_of::<N>())?)?;
    // Not into zeroed memory: clearing it would cost as much as the copy.
    Some(match bytemuck::try_cast_slice(bytes) {
        Ok(aligned) => aligned.to_vec(),
        Err(_) => bytes.chunks_exact(size_of::<N>()).map(bytemuck::pod_read_unaligned).collect(),
    })
}

/// Decodes a bulk value out of bytes that can only be copied, straight to where it will be: `None`
/// if `T` is no bulk type, else the value if the bytes are those of one. Runs no code of the
/// user's.
#[inline]
pub(crate) fn take_copied<T: 'static>(source: &impl CopyOut) -> Option<io::Result<Option<T>>> {
    let mut value: Option<T> = None;
    for_each_number!(N => {
        if is::<T, N>()
            && let Some(slot) = (&mut value as &mut dyn Any).downcast_mut::<Option<N>>()
        {
            let copied = copy_number(source).map(|number| *slot = number);
            return Some(copied.map(|()| value));
        }
        if is::<T, Vec<N>>()
            && let Some(slot) = (&mut value as &mut dyn Any).downcast_mut::<Option<Vec<N>>>()
        {
            let copied = copy_vec(source).map(|numbers| *slot = numbers);
            return Some(copied.map(|()| value));
        }
    });
    None
}

#[inline]
fn copy_number<N: Pod>(source: &impl CopyOut) -> io::Result<Option<N>> {
    if source.len() != size_of::<N>() {
        return Ok(None);
    }
    let mut number = N::zeroed();
    source.copy_out(0, bytemuck::bytes_of_mut(&mut number))?;
    Ok(Some(number))
}

fn copy_vec<N: Pod>(source: &impl CopyOut) -> io::Result<Option<Vec<N>>> {
    let mut header = 0_u64;
    let Some(body) = source.len().checked_sub(size_of_val(&header)) else { return Ok(None) };
    source.copy_out(0, bytemuck::bytes_of_mut(&mut header))?;
    // The bytes are there before memory is reserved for them.
    let count = usize::try_from(header).ok();
    let Some(count) = count.filter(|count| count.checked_mul(size_of::<N>()) == Some(body)) else {
        return Ok(None);
    };
    source.copy_out_vec(size_of_val(&header), count).map(Some)
}
