//! Lending memory to the workers for the time of a call.

use super::chunks::{Chunks, Job, decode_all};
use crate::codec::encode_value;
use crate::entry::{self, Cut, Elements, Exclusive, Lent, Shared};
use crate::memory::{FrozenVec, SharedVec};
use crate::sys::exit;
use crate::{Data, Error, Pool, Result};
use bytemuck::Pod;

/// Vectors in shared memory that a pool can work on in place, in chunks.
///
/// | lent | a chunk is |
/// |---|---|
/// | `&mut SharedVec<T>` | `&mut [T]` |
/// | `&SharedVec<T>`, `&FrozenVec<T>` | `&[T]` |
/// | a tuple of 2 to 4 of these, of one length | a tuple of their chunks |
///
/// The vectors are borrowed until the call returns, as by any function: while workers write, the
/// parent cannot look, and nothing can be lent mutably twice.
///
/// ```compile_fail,E0499
/// use multiproc::{Pool, SharedVec};
///
/// let pool = Pool::new()?;
/// let mut v: SharedVec<u64> = SharedVec::from_slice(&[1, 2, 3])?;
/// pool.for_each_chunk_mut((&mut v, &mut v), 1, |(a, b)| a[0] += b[0])?;
/// # Ok::<(), multiproc::Error>(())
/// ```
pub trait Lend: sealed::Lend {}

impl<L: sealed::Lend> Lend for L {}

/// What a worker gets of lent memory `L`: see the table at [`Lend`].
pub type ChunkOf<'a, L> = <<L as sealed::Lend>::Lent as Lent>::Chunk<'a>;

pub(crate) mod sealed {
    use super::{Lent, Result};

    pub trait Lend {
        type Lent: Lent;
        /// The number of elements.
        ///
        /// # Errors
        /// If the vectors of a tuple differ.
        fn count(&self) -> Result<usize>;
        /// What travels to the workers.
        fn lend(&mut self) -> Result<Self::Lent>;
    }
}

impl<T: Pod> sealed::Lend for &mut SharedVec<T> {
    type Lent = Exclusive<T>;

    fn count(&self) -> Result<usize> {
        Ok(self.len())
    }

    fn lend(&mut self) -> Result<Exclusive<T>> {
        Ok(Exclusive(Elements::of(self.loan_mut()?, 0)))
    }
}

impl<T: Pod> sealed::Lend for &SharedVec<T> {
    type Lent = Shared<T>;

    fn count(&self) -> Result<usize> {
        Ok(self.len())
    }

    fn lend(&mut self) -> Result<Shared<T>> {
        Ok(Shared(Elements::of(self.loan()?, 0)))
    }
}

impl<T: Pod> sealed::Lend for &FrozenVec<T> {
    type Lent = Shared<T>;

    fn count(&self) -> Result<usize> {
        Ok(self.len())
    }

    fn lend(&mut self) -> Result<Shared<T>> {
        let (loan, first) = self.loan();
        Ok(Shared(Elements::of(loan, first)))
    }
}

macro_rules! zipped {
    ($first:ident $($name:ident)*) => {
        impl<$first: sealed::Lend, $($name: sealed::Lend),*> sealed::Lend for ($first, $($name,)*) {
            type Lent = ($first::Lent, $($name::Lent,)*);

            #[allow(non_snake_case, reason = "one name for type and value")]
            fn count(&self) -> Result<usize> {
                let ($first, $($name,)*) = self;
                let count = $first.count()?;
                for other in [$($name.count()?),*] {
                    if other != count {
                        return Err(Error::invalid(format!(
                            "vectors of {count} and {other} elements: those that are lent together \
                             must have the same length"
                        )));
                    }
                }
                Ok(count)
            }

            #[allow(non_snake_case, reason = "one name for type and value")]
            fn lend(&mut self) -> Result<Self::Lent> {
                let ($first, $($name,)*) = self;
                Ok(($first.lend()?, $($name.lend()?,)*))
            }
        }
    };
}

zipped!(A B);
zipped!(A B C);
zipped!(A B C D);

impl Pool {
    /// Calls `function` with each chunk of shared memory, in place: no copy, no lock.
    ///
    /// A chunk has `chunk_len` elements, the last one perhaps fewer. The call returns when every
    /// chunk is done; what may be lent, and what a chunk then is, stands at [`Lend`].
    ///
    /// ```
    /// use multiproc::{Pool, SharedVec};
    ///
    /// let pool = Pool::builder().workers(2).build()?;
    /// let mut v: SharedVec<f64> = SharedVec::from_slice(&[1.0, 4.0, 9.0, 16.0])?;
    /// pool.for_each_chunk_mut(&mut v, 2, |chunk| chunk.iter_mut().for_each(|x| *x = x.sqrt()))?;
    /// assert_eq!(v[..], [1.0, 2.0, 3.0, 4.0]);
    ///
    /// let weights: SharedVec<f64> = SharedVec::from_slice(&[10.0, 20.0, 30.0, 40.0])?;
    /// pool.for_each_chunk_mut((&mut v, &weights), 2, |(v, weights)| {
    ///     v.iter_mut().zip(weights).for_each(|(v, weight)| *v *= weight);
    /// })?;
    /// assert_eq!(v[..], [10.0, 40.0, 90.0, 160.0]);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`map`](Pool::map): the first error, after all chunks have run. A chunk whose task
    /// panicked or whose worker died is left as it was at that moment, and is not run again, also
    /// if the pool has [`retries`](crate::PoolBuilder::retries); the others are done.
    /// [`is_invalid_input`](Error::is_invalid_input) for a chunk length of 0, and for vectors of
    /// different lengths.
    pub fn for_each_chunk_mut<L, F>(&self, lent: L, chunk_len: usize, function: F) -> Result<()>
    where
        L: Lend,
        F: Fn(ChunkOf<'_, L>) + Copy + Send + Sync + 'static,
    {
        self.run_chunks(&(), lent, chunk_len, move |(), _, chunk: ChunkOf<'_, L>| function(chunk))
            .map(drop)
    }

    /// As [`for_each_chunk_mut`](Pool::for_each_chunk_mut), with the number of the chunk: it begins
    /// at element `number * chunk_len`.
    ///
    /// # Errors
    /// As there.
    pub fn for_each_chunk_mut_indexed<L, F>(
        &self,
        lent: L,
        chunk_len: usize,
        function: F,
    ) -> Result<()>
    where
        L: Lend,
        F: Fn(usize, ChunkOf<'_, L>) + Copy + Send + Sync + 'static,
    {
        self.run_chunks(&(), lent, chunk_len, move |(), number, chunk: ChunkOf<'_, L>| {
            function(number, chunk);
        })
        .map(drop)
    }

    /// As [`for_each_chunk_mut_indexed`](Pool::for_each_chunk_mut_indexed), with a context that all
    /// chunks share.
    ///
    /// ```
    /// use multiproc::{Pool, SharedVec};
    ///
    /// let pool = Pool::builder().workers(2).build()?;
    /// let mut image = SharedVec::<u32>::zeroed(4 * 3)?;
    /// pool.for_each_chunk_mut_with(&1000, &mut image, 4, |scale, y, row| {
    ///     row.iter_mut().enumerate().for_each(|(x, pixel)| *pixel = scale * y as u32 + x as u32);
    /// })?;
    /// assert_eq!(image[4..8], [1000, 1001, 1002, 1003]);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn for_each_chunk_mut_with<C, L, F>(
        &self,
        context: &C,
        lent: L,
        chunk_len: usize,
        function: F,
    ) -> Result<()>
    where
        C: Data,
        L: Lend,
        F: Fn(&C, usize, ChunkOf<'_, L>) + Copy + Send + Sync + 'static,
    {
        self.run_chunks(context, lent, chunk_len, function).map(drop)
    }

    /// Calls `function` with each chunk of shared memory and returns the values in order.
    ///
    /// ```
    /// use multiproc::{Pool, SharedVec};
    ///
    /// let pool = Pool::builder().workers(2).build()?;
    /// let v: SharedVec<u64> = SharedVec::from_slice(&[1, 2, 3, 4, 5])?;
    /// assert_eq!(pool.map_chunks(&v, 2, |chunk| chunk.iter().sum::<u64>())?, [3, 7, 5]);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`for_each_chunk_mut`](Pool::for_each_chunk_mut).
    pub fn map_chunks<L, F, R>(&self, lent: L, chunk_len: usize, function: F) -> Result<Vec<R>>
    where
        L: Lend,
        F: Fn(ChunkOf<'_, L>) -> R + Copy + Send + Sync + 'static,
        R: Data,
    {
        self.run_chunks(&(), lent, chunk_len, move |(), _, chunk: ChunkOf<'_, L>| function(chunk))
    }

    /// As [`map_chunks`](Pool::map_chunks), with the number of the chunk.
    ///
    /// # Errors
    /// As there.
    pub fn map_chunks_indexed<L, F, R>(
        &self,
        lent: L,
        chunk_len: usize,
        function: F,
    ) -> Result<Vec<R>>
    where
        L: Lend,
        F: Fn(usize, ChunkOf<'_, L>) -> R + Copy + Send + Sync + 'static,
        R: Data,
    {
        self.run_chunks(&(), lent, chunk_len, move |(), number, chunk: ChunkOf<'_, L>| {
            function(number, chunk)
        })
    }

    /// As [`map_chunks_indexed`](Pool::map_chunks_indexed), with a context that all chunks share.
    ///
    /// # Errors
    /// As there.
    pub fn map_chunks_with<C, L, F, R>(
        &self,
        context: &C,
        lent: L,
        chunk_len: usize,
        function: F,
    ) -> Result<Vec<R>>
    where
        C: Data,
        L: Lend,
        F: Fn(&C, usize, ChunkOf<'_, L>) -> R + Copy + Send + Sync + 'static,
        R: Data,
    {
        self.run_chunks(context, lent, chunk_len, function)
    }

    fn run_chunks<C, L, F, R>(
        &self,
        context: &C,
        mut lent: L,
        chunk_len: usize,
        _function: F,
    ) -> Result<Vec<R>>
    where
        C: Data,
        L: Lend,
        F: Fn(&C, usize, ChunkOf<'_, L>) -> R + Copy + Send + Sync + 'static,
        R: Data,
    {
        if chunk_len == 0 {
            return Err(Error::invalid("chunks of 0 elements: a chunk has at least one"));
        }
        let cut = Cut { len: lent.count()? as u64, chunk_len: chunk_len as u64 };
        if cut.len == 0 {
            return Ok(Vec::new());
        }
        let entry = entry::chunk_entry::<F, L::Lent, C, R>()?;
        let travelling = lent.lend()?;
        let Chunks { engine, .. } = self.chunks();
        let mut job = Job::with_context(entry, engine, |bytes| {
            encode_value(&travelling, bytes)?;
            encode_value(&cut, bytes)?;
            encode_value(context, bytes)
        })?;
        if L::Lent::MUTABLE {
            // A second run would find what the first one left.
            job = job.only_once();
        }
        // It returns when every chunk that was handed out is done, or its worker dead: only then
        // does the loan end, whatever has happened.
        let on_loan = OnLoan;
        let outcomes = self.chunks().run(&job, (0..cut.chunks()).map(|number| (number,)));
        std::mem::forget(on_loan);
        drop(lent);
        decode_all(outcomes?.parts())
    }
}

/// Ends the process if a panic would end a loan while workers have the memory. There is no known
/// way to that; but what safe code may do with the memory afterwards hangs on it.
struct OnLoan;

impl Drop for OnLoan {
    fn drop(&mut self) {
        exit::abort_with("multiproc: a panic in the middle of a loan");
    }
}
