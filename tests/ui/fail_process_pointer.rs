use multiproc::Process;

fn double(x: u64) -> u64 {
    2 * x
}

fn main() {
    let function: fn(u64) -> u64 = double;
    let _ = Process::builder(function, (10,)).name("doubles");
}
