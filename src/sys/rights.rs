//! Receiving bytes with the descriptors that go along, `SCM_RIGHTS` of unix(7).
//!
//! nix has this, too, but gives no descriptors out of a message of which some could not be taken:
//! those that could stay open, and nobody knows their numbers.

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The most that the kernel passes in one message: `SCM_MAX_FD` in <net/scm.h>.
pub(super) const SCM_MAX_FD: usize = 253;

/// The bytes of a control message with that many descriptors.
// SAFETY: CMSG_SPACE only computes; it is no function of C's.
const SPACE: usize = unsafe { libc::CMSG_SPACE((SCM_MAX_FD * size_of::<RawFd>()) as u32) } as usize;

/// Receives what is there, without waiting, as `how` says beside that; the descriptors that came
/// are added to `fds`, and are close-on-exec. Returns how many bytes came, and what the kernel says
/// of them; `MSG_CTRUNC` is about this process, which could not take all descriptors: there is room
/// here for all that can be sent.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    target: &mut [u8],
    how: MsgFlags,
    fds: &mut Vec<OwnedFd>,
) -> nix::Result<(usize, MsgFlags)> {
    // As words, because the headers in it are aligned so.
    let mut control = [0_u64; SPACE.div_ceil(size_of::<u64>())];
    let mut part = libc::iovec { iov_base: target.as_mut_ptr().cast(), iov_len: target.len() };
    // SAFETY: a plain C struct, for which zeros are null pointers and lengths of nothing.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT | how.bits();
    // SAFETY: the message names `target` and `control`, with their lengths, and both outlive the
    // call; nothing else refers to them meanwhile.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let len = Errno::result(received)?.unsigned_abs();
    take(&message, fds);
    Ok((len, MsgFlags::from_bits_truncate(message.msg_flags)))
}

/// Takes the descriptors out of a message that was just received.
fn take(message: &libc::msghdr, fds: &mut Vec<OwnedFd>) {
    // SAFETY: the kernel has filled in the message; its control buffer is there (see `receive`).
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: the macros give only headers that lie wholly inside what the kernel has written;
        // the buffer is aligned for them.
        let (level, kind, len) =
            unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len) };
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: CMSG_LEN only computes.
            let bytes = len.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
            // SAFETY: `header` is one, as above; its data begin behind it.
            let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
            for index in 0..bytes / size_of::<RawFd>() {
                // SAFETY: the kernel has written `bytes` bytes of descriptors there. It has just
                // made them for this process, so nobody else knows their numbers or owns them.
                fds.push(unsafe { OwnedFd::from_raw_fd(data.add(index).read_unaligned()) });
            }
        }
        // SAFETY: `header` is one of this message's.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
}
