// error: `&str` must implement

use multiproc::Pool;

fn length(text: &str) -> usize {
    text.len()
}

fn main() {
    let pool = Pool::new().unwrap();
    let _ = pool.map(length, ["a", "b"]);
}
