// error: Box<u8>
// error: Pod
// error: is not satisfied

use multiproc::RawArray;

fn main() {
    let _ = RawArray::<Box<u8>>::zeroed(8);
}
