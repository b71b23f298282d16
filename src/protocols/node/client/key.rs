//! Who a node is: an Ed25519 key made from 32 secret bytes, and the ids that follow from it.
//!
//! It says nothing about where the node is; the same key gives the same public address wherever it is
//! used, and the newest user has it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::super::wire::{Id, hash};

/// A node's key.
pub struct Key {
    pair: Ed25519KeyPair,
}

impl Key {
    /// The key made from these secret bytes.
    pub fn from_seed(seed: &[u8; SEED]) -> io::Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { pair })
    }

    /// A key that nobody else has, and that is gone with this value.
    pub fn random() -> io::Result<Self> {
        Self::from_seed(&random_seed()?)
    }

    /// The key in a file, made on first use. The file holds the seed as 64 hex digits and can be read
    /// by its owner only. Who makes it at the same time as others gets the one that was first.
    pub fn at(path: &Path) -> io::Result<Self> {
        match File::open(path) {
            Ok(file) => return Self::read(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // The whole file appears at once or not at all: a half-written seed would be a key lost.
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}", std::process::id()));
        let kept = write_private(Path::new(&draft), &random_seed()?).and_then(|()| {
            match fs::hard_link(&draft, path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            }
        });
        // Gone already, where writing it failed.
        let _ = fs::remove_file(&draft);
        kept?;
        Self::read(File::open(path)?)
    }

    fn read(file: File) -> io::Result<Self> {
        let mut text = Vec::new();
        file.take(LONGEST_FILE).read_to_end(&mut text)?;
        let seed = unhex(text.trim_ascii()).ok_or_else(|| {
            let message = "it is no identity: 64 hex digits are";
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        Self::from_seed(&seed)
    }

    /// The public key, which stands in every message as `net_key`.
    pub fn net_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The sender of a message from a node at `address`, which was started as `origin`. The server
    /// knows the node by the id that follows from key and origin, whatever its address has become.
    pub(super) fn sender(&self, address: &str, origin: &str) -> Id {
        let net_key = self.net_key();
        Id {
            net_key: Some(net_key.to_vec()),
            address: address.as_bytes().to_vec(),
            id: hash(&[net_key]).to_vec(),
            connection_id: hash(&[net_key, origin.as_bytes()]).to_vec(),
            ..Id::default()
        }
    }

    pub(super) fn sign(&self, digest: &[u8]) -> Vec<u8> {
        self.pair.sign(digest).as_ref().to_vec()
    }
}

/// Without the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

fn random_seed() -> io::Result<[u8; SEED]> {
    let mut seed = [0; SEED];
    let filled = SystemRandom::new().fill(&mut seed);
    filled.map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(seed)
}

fn write_private(path: &Path, seed: &[u8; SEED]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let digits: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    file.write_all(format!("{digits}\n").as_bytes())?;
    file.sync_all()
}

fn unhex(text: &[u8]) -> Option<[u8; SEED]> {
    let mut seed = [0; SEED];
    let (digits, []) = text.as_chunks::<2>() else {
        return None;
    };
    if digits.len() != SEED {
        return None;
    }
    let digit = |&byte: &u8| char::from(byte).to_digit(16);
    for (byte, [high, low]) in seed.iter_mut().zip(digits) {
        *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
    }
    Some(seed)
}

/// Bytes that a key is made from.
pub const SEED: usize = 32;

/// A file of more bytes is none of ours, and is not read to its end.
const LONGEST_FILE: u64 = 256;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_recorded_seed_gives_the_recorded_ids() {
        let mut seed = [0; SEED];
        seed[31] = 1;
        let key = Key::from_seed(&seed).unwrap();
        let sender = key.sender("tcp://1.2.3.4:5", "tcp://127.0.0.1:7001");
        let net_key = b"4cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29";
        assert_eq!(sender.net_key.unwrap(), unhex(net_key).unwrap());
        let id = b"7f26c5a0c2219f58abcbc2ebd2da349acb10773ffbc37b6af91fa8df2486c9ea";
        assert_eq!(sender.id, unhex(id).unwrap());
        let connection_id = b"d34fc8789bdd6c42e0c795cd16aa96b7a4c9627daccc1b07e8f7a264aa40dfa9";
        assert_eq!(sender.connection_id, unhex(connection_id).unwrap());
        assert_eq!(sender.address, b"tcp://1.2.3.4:5");
    }

    #[test]
    fn a_file_is_made_once_for_its_owner_only() {
        let name = format!("towpath-key-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        // A killed run with this process's number may have left one behind.
        let _ = fs::remove_dir_all(&folder);
        let path = folder.join("deep").join("node.key");
        let first = Key::at(&path).unwrap();
        let again = Key::at(&path).unwrap();
        assert_eq!(first.net_key(), again.net_key());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(files.count(), 1);
        for text in ["", "00", &"g".repeat(64), &"0".repeat(66), &"0".repeat(300)] {
            fs::write(&path, text).unwrap();
            let error = Key::at(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
