//! Opening a file: nothing but a regular one, and hashing what is read of it.

use crate::refusal::Refusal;
use sha2::{Digest, Sha256};
use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

/// Opens a regular file without following a link in its last component.
///
/// What the name was before it was opened is compared with what was opened, so that a file that is swapped for a link in
/// between is refused too.
pub(crate) fn open_regular(path: &Path) -> Result<(File, Metadata), Refusal> {
    let unreadable = |source| Refusal::Unreadable { file: file_name(path), source };
    let named = std::fs::symlink_metadata(path).map_err(unreadable)?;
    let kind = named.file_type();
    if !kind.is_file() {
        let what = if kind.is_symlink() {
            "a symbolic link"
        } else if kind.is_dir() {
            "a folder"
        } else if kind.is_fifo() {
            "a pipe"
        } else if kind.is_socket() {
            "a socket"
        } else {
            "a device"
        };
        return Err(Refusal::NotAFile { file: file_name(path), what });
    }
    let file = File::open(path).map_err(unreadable)?;
    let opened = file.metadata().map_err(unreadable)?;
    if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
        return Err(Refusal::NotAFile { file: file_name(path), what: "something else by the time it was opened" });
    }
    Ok((file, opened))
}

/// The last component of a path, for people.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Hashes what is read through it.
pub(crate) struct Hashed<R> {
    inner: R,
    sha256: Sha256,
    bytes: u64,
}

impl<R> Hashed<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, sha256: Sha256::new(), bytes: 0 }
    }

    /// SHA-256 in hex and length of what was read so far.
    pub(crate) fn digest(&self) -> (String, u64) {
        let digest = self.sha256.clone().finalize();
        (digest.iter().map(|byte| format!("{byte:02x}")).collect(), self.bytes)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.sha256.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}
