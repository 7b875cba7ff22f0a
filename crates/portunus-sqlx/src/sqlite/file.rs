//! The file of a database: how it is created, and the operating system's reason where SQLite cannot
//! use it. SQLite itself only reports "unable to open database file".

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The size of SQLite's shared memory, with which it opens a database, plus a page of the log.
const ROOM: usize = 64 << 10;

/// The largest number of links that are followed to a file.
const MOST_LINKS: usize = 40;

/// Files that could be opened here although SQLite could not use them. One handle for each path
/// stays open: closing it would release all locks that this process holds on the file, including
/// those of another store.
static STAY_OPEN: Mutex<BTreeMap<PathBuf, File>> = Mutex::new(BTreeMap::new());

/// Whether SQLite treats this name as an in-memory or temporary database.
pub(super) fn is_none(path: &Path) -> bool {
    let name = path.to_string_lossy();
    let is_uri = name.starts_with("file:");
    name.is_empty()
        || name == ":memory:"
        || is_uri && (name.contains(":memory:") || name.contains("mode=memory"))
}

/// Creates a file, accessible only to its owner, if it does not exist: it will contain signing
/// states. SQLite gives its other files the same permissions. A failure is reported when the file
/// is opened.
pub(super) fn make_private(path: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut next = named(path);
    for _ in 0..MOST_LINKS {
        let Some(path) = next.filter(|path| options.open(path).is_err()) else {
            return;
        };
        // SQLite creates the target of a link, which may not exist yet.
        let target = fs::read_link(&path).ok();
        next = target.map(|target| path.parent().map_or(target.clone(), |at| at.join(target)));
    }
}

/// The file that SQLite would create for a name, or `None` if SQLite rejects the name or a URI
/// requires that the file exists.
fn named(path: &Path) -> Option<PathBuf> {
    let name = path.to_str()?;
    let Some(uri) = name.strip_prefix("file:") else {
        return Some(path.to_owned());
    };
    let uri = uri.split('#').next()?;
    let (place, parameters) = uri.split_once('?').unwrap_or((uri, ""));
    let makes = |parameter: &str| !parameter.starts_with("mode=") || parameter == "mode=rwc";
    if !parameters.split('&').all(makes) {
        return None;
    }
    let place = match place.strip_prefix("//") {
        Some(place) => &place[place.find('/')?..],
        None => place,
    };
    let mut bytes = Vec::new();
    let mut rest = place.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = byte.map_or(after, |_| &after[2..]);
    }
    Some(String::from_utf8(bytes).ok()?.into())
}

/// Why the operating system does not let SQLite use this file, as far as it can be determined
/// afterwards.
pub(super) fn obstacle(path: &Path) -> Option<String> {
    if path.to_string_lossy().starts_with("file:") {
        return None;
    }
    if let Err(error) = open(path) {
        let is_missing = error.kind() == ErrorKind::NotFound;
        // If the file cannot be created either, that is the reason.
        let error = (is_missing.then(|| room_beside(path).err()).flatten()).unwrap_or(error);
        return Some(error.to_string());
    }
    for ending in ["-wal", "-shm"] {
        let beside = beside(path, ending);
        if let Err(error) = open(&beside)
            && error.kind() != ErrorKind::NotFound
        {
            return Some(format!("its {ending} file: {error}"));
        }
    }
    let error = room_beside(path).err()?;
    Some(format!("a file in the same directory: {error}"))
}

fn open(path: &Path) -> io::Result<()> {
    let mut stay_open = STAY_OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if !stay_open.contains_key(path) {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        stay_open.insert(path.to_owned(), file);
    }
    Ok(())
}

/// Whether a file can be created and written in the same directory.
fn room_beside(path: &Path) -> io::Result<()> {
    let probe = beside(path, &format!("-probe-{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)?;
    let written = file.write_all(&[0; ROOM]).and_then(|()| file.sync_all());
    drop(file);
    let _ = fs::remove_file(probe);
    written
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
