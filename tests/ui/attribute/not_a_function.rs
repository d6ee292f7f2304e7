#[multiproc::task]
struct Square;

fn main() {}
