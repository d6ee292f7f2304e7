//! A small package that depends on this one, beside this one's artefacts.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package's directory. Its artefacts stay for the next run.
#[derive(Debug)]
pub struct Package(PathBuf);

impl Package {
    /// Writes a package; `profile` is the end of its manifest.
    pub fn new(name: &str, profile: &str) -> Self {
        let repository = env!("CARGO_MANIFEST_DIR");
        let package = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
             [workspace]\n\n\
             [dependencies]\nmultiproc = {{ path = {repository:?} }}\nlibc = \"0.2\"\n\
             bytemuck = \"1\"\n\n{profile}"
        );
        package.write("Cargo.toml", &manifest);
        // The same versions as here: they are on this machine.
        let lock = Path::new(repository).join("Cargo.lock");
        fs::copy(lock, package.0.join("Cargo.lock")).expect("the lock file");
        package
    }

    /// Writes a file, unless it is the same already: then cargo need not build again.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        if fs::read_to_string(&path).ok().as_deref() != Some(text) {
            fs::write(path, text).expect("write");
        }
    }

    /// A cargo command for this package.
    pub fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args([command, "--offline", "--color=never"]).current_dir(&self.0);
        cargo.env("CARGO_TARGET_DIR", self.0.join("target"));
        // What the outer build sets for itself.
        let foreign =
            |name: &OsString| name.to_str().is_some_and(|name| name.starts_with("CARGO_ENCODED"));
        std::env::vars_os().filter(|(name, _)| foreign(name)).for_each(|(name, _)| {
            cargo.env_remove(name);
        });
        cargo.env_remove("RUSTFLAGS");
        cargo
    }

    /// A program that was built.
    pub fn program(&self, path: &str) -> PathBuf {
        self.0.join("target").join(path)
    }
}
