use multiproc::Pool;

fn double(x: u64) -> u64 {
    2 * x
}

fn main() {
    let pool = Pool::new().unwrap();
    let function: fn(u64) -> u64 = double;
    let _ = pool.map(function, 0..10);
}
