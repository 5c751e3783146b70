//! Copies of dropped files, once they are as old as texts may be.

use crate::{
    folder::Kind,
    source::{Hashed, open_regular},
};
use ledger::Ledger;
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Why copies were not removed.
#[derive(Debug, thiserror::Error)]
pub enum CopiesError {
    /// A folder or a file.
    #[error("{} can't be read or removed", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

/// Removes what came into `done/` and `refused/` of a drop folder more than `age` ago, lists of rejects and settings too; with
/// `dry` only counts. A file of which a row is open stays, with what belongs to it.
pub async fn purge_copies(ledger: &Ledger, root: &Path, age: Duration, dry: bool) -> Result<u64, CopiesError> {
    let mut purged = 0;
    for folder in ["done", "refused"] {
        let folder = root.join(folder);
        let old = old_files(&folder, age).map_err(|error| CopiesError::Io(folder.clone(), error))?;
        let mut kept: Vec<String> = Vec::new();
        for file in old.iter().filter(|file| is_campaign(file)) {
            let read = file.clone();
            let digest = tokio::task::spawn_blocking(move || digest(&read)).await.map_err(io::Error::other);
            let digest = digest.and_then(|digest| digest).map_err(|error| CopiesError::Io(file.clone(), error))?;
            if !ledger.is_settled(&digest).await? {
                kept.push(stem(file));
            }
        }
        for file in old.iter().filter(|file| !kept.iter().any(|stem| name(file).starts_with(&format!("{stem}.")))) {
            if !dry {
                match fs::remove_file(file) {
                    // Another watcher of the folder was faster.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    removed => removed.map_err(|error| CopiesError::Io(file.clone(), error))?,
                }
            }
            purged += 1;
        }
    }
    Ok(purged)
}

/// Regular files that came here more than `age` ago. A rename changes the time of a file's status, not of its content.
fn old_files(folder: &Path, age: Duration) -> io::Result<Vec<PathBuf>> {
    let before = SystemTime::now().checked_sub(age).and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let before = before.map_or(0, |at| i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
    let mut old = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() && metadata.ctime() <= before {
            old.push(entry.path());
        }
    }
    old.sort();
    Ok(old)
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_campaign(file: &Path) -> bool {
    Kind::of(&name(file)) == Kind::Campaign
}

/// SHA-256 in hex, as the ledger knows files.
fn digest(file: &Path) -> io::Result<String> {
    let (file, _) = open_regular(file).map_err(io::Error::other)?;
    let mut hashed = Hashed::new(file);
    io::copy(&mut hashed, &mut io::sink())?;
    Ok(hashed.digest().0)
}
