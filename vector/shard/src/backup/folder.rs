//! The folder that a node is restored into, and the mark on it.

use super::Embedded;
use crate::error::Error;
use crate::files;
use crate::node::shard_dir;
use crate::replica;
use crate::table::{ShardId, ShardTable};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// There while a restore has not come to its end; locked by the process that restores.
const MARK: &str = "RESTORING";
/// What file systems put into an empty volume.
const LOST: &str = "lost+found";

/// Refuses a folder in which a restore is under way, or died.
pub fn refuse_half_restored(dir: &Path) -> Result<(), Error> {
    if dir.join(MARK).exists() {
        return Err(Error::Restoring {
            dir: dir.to_path_buf(),
        });
    }
    Ok(())
}

/// A folder with the mark.
pub struct Marked {
    dir: PathBuf,
    /// The folder was made for this.
    is_new: bool,
    /// Held to the end.
    mark: File,
}

impl Marked {
    pub fn begin(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(MARK);
        let is_new = !dir.exists();
        let was_marked = path.exists();
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        if !was_marked && !entries(dir)?.is_empty() {
            let dir = dir.to_path_buf();
            let taken = skerry_vector_index::store::StoreError::Exists { dir };
            return Err(skerry_vector_backup::Error::from(taken).into());
        }
        let mark = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io(&path))?;
        match mark.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Restoring {
                    dir: dir.to_path_buf(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io(&path)(error)),
        }
        files::sync_dir(dir).map_err(Error::io(dir))?;
        let marked = Self {
            dir: dir.to_path_buf(),
            is_new,
            mark,
        };
        marked.sweep()?;
        Ok(marked)
    }

    /// Takes out all but the mark.
    fn sweep(&self) -> Result<(), Error> {
        for path in entries(&self.dir)? {
            let gone = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            gone.map_err(Error::io(&path))?;
        }
        files::sync_dir(&self.dir).map_err(Error::io(&self.dir))
    }

    /// Makes it a node's folder: the replicas, the table of a node on its own, and no mark.
    pub fn finish(self, shards: &[ShardId], alone: Option<&ShardTable>) -> Result<(), Error> {
        for shard in shards {
            replica::begin_with_first(&shard_dir(&self.dir, *shard))?;
        }
        if let Some(table) = alone {
            Embedded::begin_with(&self.dir, table)?;
        }
        files::sync_dir(&self.dir).map_err(Error::io(&self.dir))?;
        self.unmark()
    }

    /// Leaves it as it was found.
    pub fn clear(self) -> Result<(), Error> {
        self.sweep()?;
        let (is_new, dir) = (self.is_new, self.dir.clone());
        self.unmark()?;
        if is_new {
            fs::remove_dir(&dir).map_err(Error::io(&dir))?;
        }
        Ok(())
    }

    fn unmark(self) -> Result<(), Error> {
        let path = self.dir.join(MARK);
        fs::remove_file(&path).map_err(Error::io(&path))?;
        files::sync_dir(&self.dir).map_err(Error::io(&self.dir))?;
        drop(self.mark);
        Ok(())
    }
}

/// What is in a folder, the mark aside.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        if entry.file_name() != MARK && entry.file_name() != LOST {
            found.push(entry.path());
        }
    }
    Ok(found)
}
