// error: cannot borrow `v` as immutable because it is also borrowed as mutable
use multiproc::{Pool, SharedVec};

fn main() -> multiproc::Result<()> {
    let pool = Pool::new()?;
    let mut v = SharedVec::<u64>::zeroed(10)?;
    pool.for_each_chunk_mut((&mut v, &v), 1, |(a, b)| a.copy_from_slice(b))
}
