// error: `Picture` cannot travel to another process
// error: needs `Serialize`, `DeserializeOwned` and `'static`
// error: derive it: `#[derive(serde::Serialize, serde::Deserialize)]`

use multiproc::Pool;

struct Picture;

fn draw(_: u64) -> Picture {
    Picture
}

fn main() {
    let pool = Pool::new().unwrap();
    let _ = pool.map(draw, 0..10);
}
