// error: expected `(u64,)`, found integer
// error: use a trailing comma to create a tuple with one element

use multiproc::Pool;

fn double(x: u64) -> u64 {
    2 * x
}

fn main() {
    let pool = Pool::new().unwrap();
    let _ = pool.apply(double, 10);
}
