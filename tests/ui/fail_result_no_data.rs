use multiproc::Pool;

struct Picture;

fn draw(_: u64) -> Picture {
    Picture
}

fn main() {
    let pool = Pool::new().unwrap();
    let _ = pool.map(draw, 0..10);
}
