// error: String
// error: Pod
// error: is not satisfied

use multiproc::RwLock;

fn main() {
    let _ = RwLock::new(String::from("the bytes are elsewhere"));
}
