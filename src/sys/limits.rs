//! Limits of this process: getrlimit(2).

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets this process have as many open files as it may have at all.
pub(crate) fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If it is refused, the limit stays as it was.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
