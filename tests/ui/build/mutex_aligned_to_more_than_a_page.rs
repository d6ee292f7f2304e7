// error: multiproc: a type aligned to more than a page

use bytemuck::{Pod, Zeroable};
use multiproc::Mutex;

#[derive(Clone, Copy)]
#[repr(C, align(8192))]
struct Wide([u8; 8192]);

// SAFETY: any bytes are one, and it has no padding.
unsafe impl Zeroable for Wide {}
// SAFETY: as above.
unsafe impl Pod for Wide {}

fn main() {
    let _ = Mutex::new(Wide([0; 8192]));
}
