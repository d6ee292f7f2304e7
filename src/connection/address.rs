use crate::sys::stream::Place;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a [`Listener`](super::Listener) can be found.
///
/// As text it is `unix:/run/chat.sock`, `abstract:chat` or `tcp:127.0.0.1:7000`, which
/// [`FromStr`] reads, too.
///
/// ```
/// use multiproc::connection::Address;
///
/// let address: Address = "tcp:127.0.0.1:7000".parse()?;
/// assert_eq!(address, Address::Tcp(([127, 0, 0, 1], 7000).into()));
/// assert_eq!(Address::abstract_name("chat").to_string(), "abstract:chat");
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Address {
    /// A Unix socket with a path in the file system, of at most 107 bytes. Whoever may not write to
    /// that file cannot connect. The path stays when its listener is killed.
    Unix(PathBuf),
    /// A Unix socket with a name of 1 to 107 bytes that is no file (the abstract names of unix(7)).
    /// It goes with its listener, however that ends. Any process of the same network namespace can
    /// connect; the listener checks who it is.
    Abstract(Vec<u8>),
    /// A TCP port. Port 0 lets the kernel choose one, which
    /// [`Listener::address`](super::Listener::address) tells.
    Tcp(SocketAddr),
}

impl Address {
    /// A Unix socket with a path.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(path.into())
    }

    /// A Unix socket with an abstract name.
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Self {
        Self::Abstract(name.as_ref().to_vec())
    }

    /// A TCP port, by number or by name: the first address that the name stands for.
    ///
    /// # Errors
    /// An OS error if the name cannot be resolved, with the name in its text.
    ///
    /// ```
    /// use multiproc::connection::Address;
    ///
    /// assert_eq!(Address::tcp(("127.0.0.1", 80))?.to_string(), "tcp:127.0.0.1:80");
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn tcp(address: impl ToSocketAddrs + fmt::Debug) -> Result<Self> {
        let not_found = |error| Error::os(format!("{address:?} is no address"), error);
        let mut found = address.to_socket_addrs().map_err(not_found)?;
        let first = found.next().ok_or_else(|| not_found(io::ErrorKind::NotFound.into()))?;
        Ok(Self::Tcp(first))
    }

    /// An abstract name that nobody else has, made of 128 random bits; for a listener that tells
    /// its address to others.
    ///
    /// # Errors
    /// An OS error if the kernel has no random numbers.
    pub fn unique() -> Result<Self> {
        let number = u128::from_ne_bytes(super::auth::random()?);
        Ok(Self::Abstract(format!("multiproc.{number:032x}").into_bytes()))
    }

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) | Self::Abstract(_) => true,
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
        }
    }

    /// The address as the system takes it.
    pub(super) fn place(&self) -> Result<Place> {
        let wrong = |error: io::Error| Error::invalid(format!("{self} is no address: {error}"));
        let empty = || wrong(io::Error::new(io::ErrorKind::InvalidInput, "it is empty"));
        match self {
            Self::Unix(path) if path.as_os_str().is_empty() => Err(empty()),
            Self::Abstract(name) if name.is_empty() => Err(empty()),
            Self::Unix(path) => {
                unix::SocketAddr::from_pathname(path).map(Place::Unix).map_err(wrong)
            }
            Self::Abstract(name) => {
                unix::SocketAddr::from_abstract_name(name).map(Place::Unix).map_err(wrong)
            }
            Self::Tcp(address) => Ok(Place::Tcp(*address)),
        }
    }

    /// The address that the system tells; `None` for a Unix socket without a name.
    pub(super) fn of(place: &Place) -> Option<Self> {
        match place {
            Place::Tcp(address) => Some(Self::Tcp(*address)),
            Place::Unix(address) => match (address.as_pathname(), address.as_abstract_name()) {
                (Some(path), _) => Some(Self::Unix(path.to_owned())),
                (None, Some(name)) => Some(Self::Abstract(name.to_owned())),
                (None, None) => None,
            },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "abstract:{}", name.escape_ascii()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) writes, but no escapes and no host names.
    ///
    /// # Errors
    /// Invalid input, with the text.
    fn from_str(text: &str) -> Result<Self> {
        let address = match text.split_once(':') {
            Some(("unix", path)) => Some(Self::unix(path)),
            Some(("abstract", name)) => Some(Self::abstract_name(name)),
            Some(("tcp", address)) => address.parse().ok().map(Self::Tcp),
            _ => None,
        };
        address.ok_or_else(|| {
            let known = "unix:<path>, abstract:<name> or tcp:<number>:<port>";
            Error::invalid(format!("{text:?} is no address: it should be {known}"))
        })
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path)
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

/// The path of a Unix socket from the root on, so that it stays the same when the process changes
/// its directory.
pub(super) fn absolute(address: Address) -> Address {
    match address {
        Address::Unix(path) => match std::path::absolute(&path) {
            // One that only fits while it is relative is left as it is.
            Ok(absolute) if absolute.as_os_str().as_bytes().len() <= LONGEST_PATH => {
                Address::Unix(absolute)
            }
            _ => Address::Unix(path),
        },
        other => other,
    }
}

/// The bytes of a path that fit into `sun_path`, with the NUL behind them.
const LONGEST_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in ["unix:/run/x:y", "abstract:name", "tcp:127.0.0.1:9", "tcp:[::1]:9"] {
            let address: Address = text.parse().expect("an address");
            assert_eq!(address.to_string(), text);
        }
        for text in ["", "x", "/run/x", "tcp:localhost:1", "tcp:1", "udp:127.0.0.1:1"] {
            assert!(text.parse::<Address>().expect_err(text).is_invalid_input());
        }
    }

    #[test]
    fn names_that_the_kernel_cannot_take_are_refused_with_the_name() {
        let long = "x".repeat(108);
        for address in [Address::unix(&long), Address::abstract_name(&long), Address::unix("a\0b")]
        {
            let error = address.place().expect_err("too long");
            assert!(error.is_invalid_input() && error.to_string().contains(&address.to_string()));
        }
        assert!(Address::unix("").place().is_err() && Address::abstract_name("").place().is_err());
        assert!(Address::abstract_name(&long[1..]).place().is_ok());
    }

    #[test]
    fn loopback_is_local_in_all_its_spellings() {
        for (text, local) in [
            ("tcp:127.8.8.8:1", true),
            ("tcp:[::1]:1", true),
            ("tcp:[::ffff:127.0.0.1]:1", true),
            ("tcp:0.0.0.0:1", false),
            ("tcp:[::]:1", false),
            ("tcp:192.168.0.1:1", false),
        ] {
            assert_eq!(text.parse::<Address>().expect("an address").is_local(), local, "{text}");
        }
    }

    #[test]
    fn unique_names_differ() {
        assert_ne!(Address::unique().expect("a name"), Address::unique().expect("a name"));
    }
}
