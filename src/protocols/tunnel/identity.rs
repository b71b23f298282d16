//! Who a client is: sixteen random bytes in a file of its own, made on first use.
//!
//! It says nothing about where the client is; the same identity gets the same public ports wherever
//! it is used, and for each name the newest user has it. It is no secret without the token, so a file
//! that others can read is taken as it is; those that are made here only their owner can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};

use super::wire::{CLIENT_ID, ClientId};

/// The identity in a file, made on first use. The file holds it as 32 hex digits and can be read by
/// its owner only. Who makes it at the same time as others gets the one that was first.
pub fn at(path: &Path) -> io::Result<ClientId> {
    match File::open(path) {
        Ok(file) => return read(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // The whole file appears at once or not at all: half an identity would be ports lost.
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let kept = write_private(Path::new(&draft), &random()?).and_then(|()| {
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    });
    // Gone already, where writing it failed.
    let _ = fs::remove_file(&draft);
    kept?;
    read(File::open(path)?)
}

/// An identity that nobody else has, and that is gone with its user.
pub fn random() -> io::Result<ClientId> {
    let mut bytes = [0; CLIENT_ID];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(ClientId::new(bytes))
}

fn read(file: File) -> io::Result<ClientId> {
    let mut text = Vec::new();
    file.take(LONGEST_FILE).read_to_end(&mut text)?;
    ClientId::from_hex(text.trim_ascii()).ok_or_else(|| {
        let message = "it is no identity: 32 hex digits are";
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

fn write_private(path: &Path, id: &ClientId) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(format!("{}\n", id.to_hex()).as_bytes())?;
    file.sync_all()
}

/// A file of more bytes is none of ours, and is not read to its end.
const LONGEST_FILE: u64 = 256;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_made_once_for_its_owner_only() {
        let name = format!("towpath-identity-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        // A killed run with this process's number may have left one behind.
        let _ = fs::remove_dir_all(&folder);
        let path = folder.join("deep").join("expose.id");
        let first = at(&path).unwrap();
        assert_eq!(at(&path).unwrap(), first);
        assert_ne!(random().unwrap(), first);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read(&path).unwrap(),
            format!("{}\n", first.to_hex()).as_bytes()
        );
        let files = fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(files.count(), 1);
        for text in ["", "00", &"g".repeat(32), &"0".repeat(34), &"0".repeat(300)] {
            fs::write(&path, text).unwrap();
            let error = at(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
