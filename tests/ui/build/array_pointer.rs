// error: &str
// error: Pod
// error: is not satisfied

use multiproc::Array;

fn main() {
    let _ = Array::<&str>::zeroed(8);
}
