struct Log(Vec<String>);

#[multiproc::managed]
impl Log {
    pub fn into_lines(self) -> Vec<String> {
        self.0
    }
}

fn main() {}
