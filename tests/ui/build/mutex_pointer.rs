// error: &u8
// error: Pod
// error: is not satisfied

use multiproc::Mutex;

fn main() {
    let _ = Mutex::new(&5u8);
}
