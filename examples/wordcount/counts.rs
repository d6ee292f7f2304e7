use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::OsString;
use std::{fmt, fs, mem};

/// How often each word occurs in some files.
#[derive(Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    words: HashMap<String, u64>,
    files: u64,
    bytes: u64,
    /// Files that are binary or could not be read.
    skipped: u64,
}

impl Counts {
    /// Counts the words of these files too.
    pub fn and(mut self, files: Vec<OsString>) -> Self {
        for file in files {
            match fs::read(file) {
                Ok(bytes) if !is_binary(&bytes) => self.add(&bytes),
                _ => self.skipped += 1,
            }
        }
        self
    }

    fn add(&mut self, file: &[u8]) {
        self.files += 1;
        self.bytes += file.len() as u64;
        // What is not UTF-8 becomes a replacement character, which is in no word.
        let text = String::from_utf8_lossy(file);
        let words = text.split(|char: char| !char.is_alphanumeric() && char != '_');
        for word in words.filter(|word| word.starts_with(char::is_alphabetic)) {
            match self.words.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(self.words.insert(word.to_owned(), 1)),
            }
        }
    }

    /// The counts of both.
    pub fn plus(mut self, mut other: Self) -> Self {
        if self.words.len() < other.words.len() {
            mem::swap(&mut self.words, &mut other.words);
        }
        for (word, count) in other.words {
            *self.words.entry(word).or_default() += count;
        }
        self.files += other.files;
        self.bytes += other.bytes;
        self.skipped += other.skipped;
        self
    }
}

/// Whether there is a zero byte near the start of the file, which is how git tells.
fn is_binary(file: &[u8]) -> bool {
    file.iter().take(8000).any(|byte| *byte == 0)
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut top: Vec<_> = self.words.iter().collect();
        top.sort_unstable_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
        for (word, count) in top.iter().take(10) {
            writeln!(f, "{count:9} {word}")?;
        }
        let Self { files, skipped, .. } = self;
        let (words, distinct) = (self.words.values().sum::<u64>(), self.words.len());
        let megabytes = self.bytes as f64 / 1e6;
        writeln!(
            f,
            "{words} words, {distinct} of them different, in {files} files of {megabytes:.1} MB"
        )?;
        write!(f, "{skipped} files are binary or could not be read")
    }
}
