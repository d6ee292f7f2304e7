use crate::sys::pidfd::Exit;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a process ended.
///
/// ```
/// use multiproc::ExitStatus;
///
/// assert!(ExitStatus::Code(0).success());
/// assert_eq!(ExitStatus::Code(3).exitcode(), Some(3));
/// assert_eq!(ExitStatus::Unknown.exitcode(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    #[non_exhaustive]
    Signal {
        /// The signal's number.
        signal: i32,
        /// Whether the system wrote a core dump.
        core_dumped: bool,
    },
    /// It ended, but the status went to somebody else: `SIGCHLD` is ignored in this program, or
    /// other code waits for any child.
    Unknown,
}

impl ExitStatus {
    /// Whether it is exit code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }

    /// The exit code, if it exited by itself.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(*code),
            _ => None,
        }
    }

    /// The signal that ended it, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Signal { signal, .. } => Some(*signal),
            _ => None,
        }
    }

    /// Whether a core was dumped.
    #[must_use]
    pub fn core_dumped(&self) -> bool {
        matches!(self, Self::Signal { core_dumped: true, .. })
    }

    /// The number that Python's `Process.exitcode` shows: the exit code, or -N for signal N;
    /// `None` if the status is unknown.
    #[must_use]
    pub fn exitcode(&self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(*code),
            Self::Signal { signal, .. } => Some(-signal),
            Self::Unknown => None,
        }
    }
}

impl From<Exit> for ExitStatus {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Code(code) => Self::Code(code),
            Exit::Signal(signal, core_dumped) => Self::Signal { signal, core_dumped },
            Exit::Unknown => Self::Unknown,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal { signal, core_dumped } => {
                write!(f, "signal {signal}")?;
                if let Ok(signal) = nix::sys::signal::Signal::try_from(*signal) {
                    write!(f, " ({})", signal.as_str())?;
                }
                if *core_dumped { f.write_str(", core dumped") } else { Ok(()) }
            }
            Self::Unknown => f.write_str("an unknown exit status"),
        }
    }
}
