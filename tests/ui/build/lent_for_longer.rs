// error: cannot travel to another process
use multiproc::{Pool, SharedVec};

fn main() -> multiproc::Result<()> {
    let pool = Pool::new()?;
    let mut v = SharedVec::<u64>::zeroed(10)?;
    let chunks = pool.map_chunks(&mut v, 1, |chunk| chunk)?;
    assert_eq!(chunks.len(), 10);
    Ok(())
}
