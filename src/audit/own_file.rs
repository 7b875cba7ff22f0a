//! A file that one process at a time can open for writing.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

#[cfg(unix)]
pub(super) type OwnFile = nix::fcntl::Flock<File>;
#[cfg(not(unix))]
pub(super) type OwnFile = File;

/// Opens or creates a file, readable by its owner only. The lock ends when the file is closed, also
/// by the end of the process.
///
/// # Errors
/// Returns an error if the file cannot be opened, or another process has it open.
pub(super) fn open(path: &Path) -> io::Result<OwnFile> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // FILE_SHARE_READ: others can read the file, but not open it for writing.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 1);
    lock(options.open(path)?)
}

#[cfg(unix)]
fn lock(file: File) -> io::Result<OwnFile> {
    use nix::errno::Errno;
    use nix::fcntl::{Flock, FlockArg};
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => {
            let why = "another process has the file open";
            io::Error::new(io::ErrorKind::ResourceBusy, why)
        }
        error => error.into(),
    })
}

#[cfg(not(unix))]
fn lock(file: File) -> io::Result<OwnFile> {
    Ok(file)
}
