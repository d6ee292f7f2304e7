use multiproc::Process;

fn main() {
    let factor = 3;
    let _ = Process::spawn(move |x: u64| x * factor, (10,));
}
