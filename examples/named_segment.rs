//! Two programs that do not know each other share memory by its name: a thermometer creates it, a
//! display opens it. All they agree on is where what is. (Both are this program, started anew.)
//!
//! `cargo run --example named_segment`

use multiproc::SharedMemory;
use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

const COUNT: usize = 0; // at which byte the number of measurements is,
const VALUES: usize = 8; // and at which they begin
const TEMPERATURES: [f64; 4] = [19.5, 20.25, 21.0, 20.75];

fn thermometer(name: &str) -> Result<(), Box<dyn Error>> {
    let memory = SharedMemory::create(name, 4096)?; // removed when this function returns
    for (number, value) in TEMPERATURES.into_iter().enumerate() {
        memory.write(VALUES + 8 * number, value)?;
        // Who sees the number sees the values.
        memory.atomic_u64(COUNT)?.store(number as u64 + 1, Ordering::Release);
    }
    println!("measured {} times", TEMPERATURES.len());
    std::io::stdin().read_to_end(&mut Vec::new())?; // until nobody needs it any more
    Ok(())
}

fn display(name: &str) -> Result<(), Box<dyn Error>> {
    let memory = SharedMemory::open(name)?;
    let count = memory.atomic_u64(COUNT)?.load(Ordering::Acquire);
    let values = (0..count as usize).map(|number| memory.read(VALUES + 8 * number));
    println!("{:?}", values.collect::<Result<Vec<f64>, _>>()?);
    Ok(())
}

fn both() -> Result<(), Box<dyn Error>> {
    let (program, name) = (std::env::current_exe()?, format!("example.{}", std::process::id()));
    let mut measuring = Command::new(&program);
    let measuring = measuring.args(["thermometer", &name]).stdin(Stdio::piped());
    let mut measuring = measuring.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(measuring.stdout.take().expect("a pipe")).read_line(&mut line)?;

    let output = Command::new(&program).args(["display", &name]).output()?;
    let shown = String::from_utf8(output.stdout)?;
    print!("the thermometer has {line}the display shows {shown}");
    assert_eq!(shown.trim_end(), format!("{TEMPERATURES:?}"));

    drop(measuring.stdin.take()); // which tells it to end
    assert!(measuring.wait()?.success());
    assert!(SharedMemory::open(&name).is_err(), "the name is gone with who created it");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    match &std::env::args().collect::<Vec<_>>()[..] {
        [_, role, name] if role == "thermometer" => thermometer(name),
        [_, role, name] if role == "display" => display(name),
        _ => both(),
    }
}
