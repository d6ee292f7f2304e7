//! Signal masks and dispositions.

use std::mem::MaybeUninit;

/// Blocks every signal in the calling thread until it is dropped.
#[derive(Debug)]
pub(crate) struct BlockAll {
    previous: libc::sigset_t,
}

impl BlockAll {
    pub(crate) fn new() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut previous = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises `all`; pthread_sigmask reads it and initialises
        // `previous`, and fails only for an invalid first argument.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), previous.as_mut_ptr());
            Self { previous: previous.assume_init() }
        }
    }
}

impl Drop for BlockAll {
    fn drop(&mut self) {
        // SAFETY: `previous` was filled by the kernel in `new`.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.previous,
                std::ptr::null_mut(),
            );
        }
    }
}

/// Unblocks every signal in the calling thread.
pub(crate) fn unblock_all() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises `none` before it is read.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Does for a process image that never reaches `main` what std's runtime does before `main`:
/// `SIGPIPE` is ignored, and descriptors 0 to 2 are open.
pub(crate) fn prepare_image() {
    // SAFETY: SIG_IGN is a valid disposition for SIGPIPE; fcntl and open touch only the
    // descriptor table, and the path is a C string.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        for fd in 0..3 {
            if libc::fcntl(fd, libc::F_GETFD) == -1 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
}

/// Makes `SIGINT` do nothing in this process, as a handler and not as `SIG_IGN`: programs that
/// it executes get the default again.
///
/// Ctrl-C goes to every process of the terminal's foreground group. What it means is the
/// parent's decision; its workers end with it.
pub(crate) fn shrug_off_interrupt() {
    // SAFETY: the action is fully initialised (zeros are a valid mask and flags), the handler
    // does nothing and so is async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGINT, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn nothing(_: libc::c_int) {}

/// Sets the name that `ps` and `top` show for the calling thread (cut to 15 bytes).
pub(crate) fn set_thread_name(name: &str) {
    let mut bytes = [0u8; 16];
    for (slot, byte) in bytes.iter_mut().zip(name.bytes().take(15)) {
        *slot = byte;
    }
    // SAFETY: `bytes` is NUL-terminated and 16 bytes long, as PR_SET_NAME wants.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

/// Gives `SIGINT` its default meaning back, in a child that inherited the shrug.
pub(crate) fn stop_shrugging() {
    // SAFETY: zeros are a valid sigaction for the kernel to overwrite; SIG_DFL is a valid
    // disposition for SIGINT.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGINT, std::ptr::null(), &raw mut action);
        if action.sa_sigaction == nothing as extern "C" fn(libc::c_int) as usize {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
        }
    }
}
