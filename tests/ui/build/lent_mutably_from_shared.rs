// error: cannot assign to `chunk[_]`, which is behind a `&` reference
use multiproc::{Pool, SharedVec};

fn main() -> multiproc::Result<()> {
    let pool = Pool::new()?;
    let v = SharedVec::<u64>::zeroed(10)?;
    pool.for_each_chunk_mut(&v, 1, |chunk| chunk[0] = 1)
}
