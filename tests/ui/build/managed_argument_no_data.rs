// error: cannot travel to another process
// error: derive it: `#[derive(serde::Serialize, serde::Deserialize)]`
struct Line(#[allow(dead_code)] u64);

struct Log(Vec<Line>);

#[multiproc::managed]
impl Log {
    pub fn push(&mut self, line: Line) {
        self.0.push(line);
    }
}

fn main() {}
