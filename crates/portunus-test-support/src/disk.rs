//! A folder on a disk that can be full: a small file system of its own where the test can mount
//! one, or a limit on the file size of the processes under test.
//!
//! The two fail differently: a full file system reports "No space left on device", the limit "File
//! too large", which SQLite treats as an I/O error.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A folder on a disk that can be filled.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    is_mounted: bool,
}

impl Disk {
    /// Every kind of disk that is available here: always one with limited processes, and a file
    /// system of this many kibibytes if it can be mounted.
    pub fn all(kibibytes: u32) -> Vec<Self> {
        Self::mounted(kibibytes)
            .into_iter()
            .chain([Self::limited()])
            .collect()
    }

    /// A disk that is filled by limiting the file size of processes.
    pub fn limited() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            is_mounted: false,
        }
    }

    /// A file system of this many kibibytes. Returns `None`, with a line on stderr, if it cannot be
    /// mounted.
    pub fn mounted(kibibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={kibibytes}k,mode=755");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output();
        let is_mounted = mount.is_ok_and(|mount| mount.status.success());
        if !is_mounted {
            eprintln!("testing with a file size limit only: mounting a file system requires root");
        }
        is_mounted.then_some(Self { folder, is_mounted })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns a command that runs a program on this disk.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        // A process that ignores SIGXFSZ gets an error instead.
        let mut command = Command::new("sh");
        command.args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#]);
        command.arg(program);
        command
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Makes the disk full for the process with this id.
    pub fn fill(&self, pid: u32) {
        if !self.is_mounted {
            return self.limit(pid, "0:");
        }
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while ballast.write(&vec![0; size]).is_ok() {}
        }
    }

    /// Frees space again.
    pub fn free_space(&self, pid: u32) {
        if self.is_mounted {
            fs::remove_file(self.ballast()).unwrap();
        } else {
            self.limit(pid, "unlimited:");
        }
    }

    /// Limits the files of the process with this id to this many bytes.
    pub fn limit_files(&self, pid: u32, bytes: u64) {
        self.limit(pid, &format!("{bytes}:"));
    }

    fn limit(&self, pid: u32, fsize: &str) {
        // Only the process's own user may limit it; root may lack the capability in a container.
        let owner = |process: String| {
            let folder = fs::metadata(format!("/proc/{process}")).unwrap();
            (folder.uid(), folder.gid())
        };
        let (user, group) = owner(pid.to_string());
        let mut prlimit = Command::new("prlimit");
        if (user, group) != owner("self".into()) {
            prlimit.uid(user).gid(group);
        }
        let status = prlimit
            .args([&format!("--pid={pid}"), &format!("--fsize={fsize}")])
            .status();
        let status = status.expect("prlimit of the package util-linux");
        assert!(status.success(), "prlimit failed: {status}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg("-l").arg(self.path()).status();
        }
    }
}
