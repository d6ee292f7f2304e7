// error: multiproc: a type without a size cannot be shared

use multiproc::SharedVec;

fn main() {
    let _ = SharedVec::<()>::zeroed(8);
}
