struct Log(Vec<String>);

#[multiproc::managed]
impl Log {
    pub fn push<T: ToString>(&mut self, item: T) {
        self.0.push(item.to_string());
    }
}

fn main() {}
