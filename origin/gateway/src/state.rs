//! The state folder: `FORMAT`, the embedded database, the model files, what is kept for
//! explanations. Damaged state is refused with the file's name and a remedy; only `repair` sets
//! anything aside. Small files are replaced whole (write, sync, rename), never in place.

use crate::Error;
use fjall::{Database, Keyspace, PersistMode};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Format written here; older ones are migrated, newer ones refused.
const FORMAT: u32 = 1;
const FORMAT_NAME: &str = "skerry-origin";
/// Memory that the database may use to cache blocks.
const CACHE_BYTES: u64 = 64 << 20;

/// An open state folder.
#[derive(Clone)]
pub struct State {
    pub dir: PathBuf,
    pub db: Database,
    meta: Keyspace,
}

impl State {
    pub fn open(dir: &Path, repair: bool) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        check_format(dir, repair)?;
        let store = dir.join("store");
        let db = match open_database(&store) {
            Err(Error::Corrupt { reason, .. }) if repair => {
                let aside = set_aside(&store)?;
                tracing::warn!(%reason, aside = %aside.display(), "the damaged store was set aside");
                open_database(&store)?
            }
            opened => opened?,
        };
        let meta = skerry_origin_events::keyspace(&db, "meta")?;
        Ok(Self {
            dir: dir.to_owned(),
            db,
            meta,
        })
    }

    pub fn keyspace(&self, name: &str) -> Result<Keyspace, Error> {
        Ok(skerry_origin_events::keyspace(&self.db, name)?)
    }

    /// Moves what was written lately out of the journal, so that the next start need not read it
    /// again. For after an import and before a planned end.
    pub fn settle(&self) -> Result<(), Error> {
        for name in self.db.list_keyspace_names() {
            self.keyspace(&name)?.rotate_memtable_and_wait()?;
        }
        Ok(())
    }

    /// A small setting of the state itself.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.meta.get(name)?.map(|bytes| bytes.to_vec()))
    }

    /// Durable when it returns.
    pub fn put(&self, name: &str, value: &[u8]) -> Result<(), Error> {
        self.meta.insert(name, value)?;
        Ok(self.db.persist(PersistMode::SyncData)?)
    }
}

/// Opens the database; what it cannot read, or panics on, is damage.
fn open_database(path: &Path) -> Result<Database, Error> {
    let damaged = |reason: String| Error::Corrupt {
        path: path.to_owned(),
        reason,
    };
    let open = || {
        Database::builder(path)
            .cache_size(CACHE_BYTES)
            .worker_threads(1)
            .open()
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(fjall::Error::Locked)) => Err(Error::Locked {
            path: path.to_owned(),
        }),
        Ok(Err(fjall::Error::Io(error)))
            if error.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Err(Error::Io {
                path: path.to_owned(),
                reason: error.to_string(),
            })
        }
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(_) => Err(damaged("the database cannot be read".to_owned())),
    }
}

fn check_format(dir: &Path, repair: bool) -> Result<(), Error> {
    let path = dir.join("FORMAT");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && !dir.join("store").exists() =>
        {
            return write_whole(&path, format!("{FORMAT_NAME} {FORMAT}\n").as_bytes());
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => String::new(),
        Err(error) => return Err(Error::io(path)(error)),
    };
    let found = text
        .trim_end()
        .strip_prefix(FORMAT_NAME)
        .and_then(|rest| rest.trim().parse::<u32>().ok());
    match found {
        Some(found) if found > FORMAT => Err(Error::Newer {
            path,
            found,
            known: FORMAT,
        }),
        Some(_) => Ok(()),
        None if repair => {
            if path.exists() {
                set_aside(&path)?;
            }
            write_whole(&path, format!("{FORMAT_NAME} {FORMAT}\n").as_bytes())
        }
        None => Err(Error::Corrupt {
            path,
            reason: format!("it does not say `{FORMAT_NAME} {FORMAT}`"),
        }),
    }
}

/// Renames a damaged file or folder to `NAME.corrupt`, `NAME.corrupt-2`, ...
pub fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("state");
    let mut aside = path.with_file_name(format!("{name}.corrupt"));
    let mut count = 1;
    while aside.exists() {
        count += 1;
        aside = path.with_file_name(format!("{name}.corrupt-{count}"));
    }
    std::fs::rename(path, &aside).map_err(Error::io(path))?;
    Ok(aside)
}

/// Replaces a file's content so that a crash leaves the old or the new one, never a mixture.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        path.parent()
            .map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
    };
    write().map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_refused_by_name_and_set_aside_on_request() {
        let dir = tempfile::tempdir().unwrap();
        {
            let state = State::open(dir.path(), false).unwrap();
            state.put("a", b"1").unwrap();
            assert!(matches!(
                State::open(dir.path(), false),
                Err(Error::Locked { .. })
            ));
        }
        assert_eq!(
            State::open(dir.path(), false)
                .unwrap()
                .get("a")
                .unwrap()
                .as_deref(),
            Some(&b"1"[..])
        );
        let cases: [(&str, &[u8], &str); 3] = [
            ("FORMAT", b"skerry-origin 9\n", "state_newer"),
            ("FORMAT", b"\xff\xfe", "state_corrupt"),
            ("FORMAT", b"other 1", "state_corrupt"),
        ];
        for (name, bytes, code) in cases {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            let error = State::open(dir.path(), false).err().unwrap();
            assert_eq!(error.code(), code);
            assert!(error.to_string().contains(name), "{error}");
        }
        State::open(dir.path(), true).unwrap();
        assert!(dir.path().join("FORMAT.corrupt").exists());
    }

    #[test]
    fn a_damaged_store_is_refused_and_repaired() {
        let dir = tempfile::tempdir().unwrap();
        drop(State::open(dir.path(), false).unwrap());
        std::fs::write(dir.path().join("store/version"), b"garbage").unwrap();
        assert_eq!(
            State::open(dir.path(), false).err().unwrap().code(),
            "state_corrupt"
        );
        assert_eq!(
            State::open(dir.path(), true).unwrap().get("a").unwrap(),
            None
        );
        assert!(dir.path().join("store.corrupt").exists());
    }
}
