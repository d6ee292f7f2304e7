// error: multiproc: a type without a size cannot be shared

use multiproc::RwLock;

fn main() {
    let _ = RwLock::new([0u64; 0]);
}
