struct Log(Vec<String>);

#[multiproc::managed]
impl Log {
    pub fn push(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }

    pub fn last(&self) -> Option<&String> {
        self.0.last()
    }
}

fn main() {}
