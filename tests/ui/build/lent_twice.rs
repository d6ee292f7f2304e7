// error: cannot borrow `v` as mutable more than once at a time
use multiproc::{Pool, SharedVec};

fn main() -> multiproc::Result<()> {
    let pool = Pool::new()?;
    let mut v = SharedVec::<u64>::zeroed(10)?;
    pool.for_each_chunk_mut((&mut v, &mut v), 1, |(a, b)| a.swap_with_slice(b))
}
