//! What goes over the wire of a connection, written down a second time, for tests that are no
//! decent peers.

use multiproc::connection::{Address, Connection};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

/// The bytes of a hello, of a proof, and of a verdict.
pub const HELLO: usize = 256;
pub const PROOF: usize = 32;
pub const VERDICT: usize = 40;

/// The hello of a client that says what it should, with a bad random number.
pub fn hello(keyed: bool) -> [u8; HELLO] {
    let mut bytes = [0; HELLO];
    bytes[..7].copy_from_slice(b"mpconn\x01");
    bytes[8] = (size_of::<usize>() as u8) << 1 | u8::from(cfg!(target_endian = "big"));
    bytes[9] = u8::from(keyed);
    bytes
}

/// The header of a frame: 1 is a value, 2 are bytes, 3 is a descriptor.
pub fn header(kind: u8, objects: u16, len: u64) -> Vec<u8> {
    let mut bytes = b"mpf\x01".to_vec();
    bytes.extend([kind, 0]);
    bytes.extend(objects.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes
}

/// A socket without any manners.
#[derive(Debug)]
pub enum Raw {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Raw {
    /// Connects, and does no more. Reading gives up after the patience of a test.
    pub fn connect(address: &Address) -> std::io::Result<Self> {
        let patience = Some(super::PATIENCE);
        match address {
            Address::Unix(path) => UnixStream::connect(path).map(Self::Unix),
            Address::Abstract(name) => {
                UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?).map(Self::Unix)
            }
            Address::Tcp(address) => TcpStream::connect(address).map(Self::Tcp),
            other => panic!("{other}"),
        }
        .and_then(|raw| raw.patient(patience))
    }

    /// The socket of a connection that is a Unix one.
    pub fn of<S, R>(connection: &Connection<S, R>) -> Self {
        let fd = connection.as_fd().try_clone_to_owned().expect("a descriptor");
        Self::Unix(UnixStream::from(fd))
    }

    /// How long a read waits.
    pub fn patient(self, patience: Option<Duration>) -> std::io::Result<Self> {
        match &self {
            Self::Unix(stream) => stream.set_read_timeout(patience)?,
            Self::Tcp(stream) => stream.set_read_timeout(patience)?,
        }
        Ok(self)
    }

    /// Reads exactly as many bytes.
    pub fn get(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.read_exact(&mut bytes).expect("bytes");
        bytes
    }

    /// Waits until the other side has closed; what it sent before is of no interest.
    pub fn wait_for_end(&mut self) {
        let mut bytes = [0; 512];
        loop {
            match self.read(&mut bytes) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                // A read with a timeout is not begun again after this process was stopped.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("it did not end: {error}"),
            }
        }
    }
}

impl Read for Raw {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(bytes),
            Self::Tcp(stream) => stream.read(bytes),
        }
    }
}

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
