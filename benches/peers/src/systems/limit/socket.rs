//! A process at the other end of a socket, by which a number goes there and the next one
//! comes back.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::Result;

use crate::reaper;
use crate::systems::answered::Partner;
use crate::systems::forked::{fork, wait};
use crate::workload::Workload;

/// The end of the socket here.
pub struct Socket {
    /// The socket.
    stream: File,
    /// The process; `None` when it has been waited for.
    pid: Option<libc::pid_t>,
}

/// Tells the process to end. It would not see the end of what it reads from, as it has
/// both ends.
const END: u64 = u64::MAX;

impl Partner for Socket {
    const NAME: &'static str = "limit_socket";

    const FAMILY: &'static str = "limit";

    const WORKLOADS: &'static [Workload] =
        &[Workload::PipePingpong, Workload::ListenerUnix, Workload::ListenerTcp];

    fn start(workload: Workload) -> Result<Socket> {
        let (stream, other) = match workload {
            Workload::ListenerTcp => tcp()?,
            _ => unix()?,
        };
        let pid = fork(|| {
            reaper::end_with_parent();
            // An error means that this process has ended, or is about to.
            let _ = serve(&other);
        })?;
        Ok(Socket { stream, pid: Some(pid) })
    }

    fn ask(&mut self, number: u64) -> Result<u64> {
        write(&self.stream, number)?;
        read(&self.stream)
    }

    fn stop(mut self) -> Result<()> {
        self.end()
    }
}

/// A pair of Unix sockets.
fn unix() -> Result<(File, File)> {
    let (here, there) = UnixStream::pair()?;
    Ok((OwnedFd::from(here).into(), OwnedFd::from(there).into()))
}

/// A connection over the loopback interface.
fn tcp() -> Result<(File, File)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    let (there, _) = listener.accept()?;
    here.set_nodelay(true)?;
    there.set_nodelay(true)?;
    Ok((OwnedFd::from(here).into(), OwnedFd::from(there).into()))
}

/// The life of the process.
fn serve(stream: &File) -> Result<()> {
    loop {
        match read(stream)? {
            END => return Ok(()),
            number => write(stream, number + 1)?,
        }
    }
}

/// Sends a number.
fn write(mut stream: &File, number: u64) -> Result<()> {
    Ok(stream.write_all(&number.to_ne_bytes())?)
}

/// Receives a number.
fn read(mut stream: &File) -> Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

impl Socket {
    /// Ends the process, if it has not been ended yet.
    fn end(&mut self) -> Result<()> {
        let Some(pid) = self.pid.take() else { return Ok(()) };
        write(&self.stream, END)?;
        wait(pid)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // If it cannot be told to end it has ended, or will with this process.
        let _ = self.end();
    }
}
