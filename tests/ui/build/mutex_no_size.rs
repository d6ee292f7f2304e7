// error: multiproc: a type without a size cannot be shared

use multiproc::Mutex;

fn main() {
    let _ = Mutex::new(());
}
