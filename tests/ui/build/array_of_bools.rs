// error: bool
// error: Pod
// error: is not satisfied

use multiproc::Array;

fn main() {
    // Another process could write a byte that is no bool; `AtomicValue<bool>` reads one bit.
    let _ = Array::<bool>::zeroed(8);
}
