use multiproc::Pool;

fn double(x: u64) -> u64 {
    2 * x
}

fn main() {
    let pool = Pool::new().unwrap();
    let _ = pool.apply(double as fn(u64) -> u64, (10,));
}
