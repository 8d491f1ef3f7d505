//! Files of the state folder: written whole or not at all, and set aside when they are corrupt.

use crate::error::Error;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Format of the whole state folder. Newer ones are refused, older ones would be migrated.
pub const FORMAT: u32 = 1;

/// Makes the state folder where it is missing and checks its format.
pub fn open_state(dir: &Path) -> Result<(), Error> {
    let state = |source| Error::State {
        path: dir.to_owned(),
        source,
    };
    make_private(dir).map_err(state)?;
    let file = dir.join("FORMAT");
    match fs::read_to_string(&file) {
        Ok(text) => {
            let unreadable =
                || io::Error::new(io::ErrorKind::InvalidData, "FORMAT is not a number");
            let found: u32 = text.trim().parse().map_err(|_| state(unreadable()))?;
            if found > FORMAT {
                return Err(Error::Newer {
                    path: dir.to_owned(),
                    found,
                    known: FORMAT,
                });
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_whole(&file, &[format!("{FORMAT}\n").as_bytes()]).map_err(state)
        }
        Err(error) => Err(state(error)),
    }
}

/// A folder that only its owner may enter.
pub fn make_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// Writes beside the file, syncs, renames, and syncs the folder.
pub fn write_whole(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes renames and new files in a folder durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Renames to `*.corrupt`, over an older one of that name.
pub fn set_aside(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".corrupt");
    let aside = path.with_file_name(name);
    if aside.is_dir() {
        fs::remove_dir_all(&aside)?;
    }
    fs::rename(path, aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_state_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        open_state(dir.path()).unwrap();
        open_state(dir.path()).unwrap();
        fs::write(dir.path().join("FORMAT"), "2\n").unwrap();
        assert_eq!(
            open_state(dir.path()).unwrap_err().code(),
            "pop_state_newer"
        );
        fs::write(dir.path().join("FORMAT"), "two").unwrap();
        assert_eq!(open_state(dir.path()).unwrap_err().code(), "pop_state");
    }
}
