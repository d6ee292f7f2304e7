use rayon::prelude::*;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The folder to count: the one that the user gave, or where cargo unpacks what it has fetched.
pub fn folder() -> PathBuf {
    if let Some(folder) = env::args_os().nth(1) {
        return folder.into();
    }
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    if let Some(fetched) = home.map(|home| home.join("registry/src"))
        && fetched.is_dir()
    {
        return fetched;
    }
    println!("cargo has no fetched sources here, so this counts the sources of multiproc itself");
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All files below a folder. Links are not followed, and folders within that cannot be read are
/// left out.
pub fn below(folder: &Path) -> Result<Vec<OsString>, String> {
    let failed = |error| format!("cannot read {}: {error}", folder.display());
    let mut entries: Vec<_> = fs::read_dir(folder).map_err(failed)?.collect();
    let mut files = Vec::new();
    while let Some(entry) = entries.pop() {
        let Ok(entry) = entry else { continue };
        match entry.file_type() {
            Ok(kind) if kind.is_file() => files.push(entry.path().into()),
            Ok(kind) if kind.is_dir() => {
                entries.extend(fs::read_dir(entry.path()).into_iter().flatten())
            }
            _ => {}
        }
    }
    Ok(files)
}

/// Reads all files, so that the system has them in memory.
pub fn read_once(files: &[OsString]) {
    files.par_iter().for_each(|file| drop(fs::read(file)));
}
