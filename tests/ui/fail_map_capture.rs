use multiproc::Pool;

fn main() {
    let pool = Pool::new().unwrap();
    let factor = 3;
    let _ = pool.map(move |x: u64| x * factor, 0..10);
}
