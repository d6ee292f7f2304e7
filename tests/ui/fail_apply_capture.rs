use multiproc::Pool;

fn main() {
    let pool = Pool::new().unwrap();
    let factor = 3;
    let _ = pool.apply(move |x: u64| x * factor, (10,));
}
