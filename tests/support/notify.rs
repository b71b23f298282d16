//! The service manager's side: a socket that takes what a server tells, and the descriptors that it
//! gives to keep.

use std::cell::RefCell;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{Receiver, channel};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::DEADLINE;
use super::folder::Folder;

/// What a server tells its service manager. A thread takes it at once, as a service manager does: the
/// socket has room for few messages, and whoever tells one more waits.
pub struct Notify {
    coming: Receiver<Message>,
    /// Messages that came and that nobody has asked for yet.
    heard: RefCell<Vec<Message>>,
    folder: Folder,
}

/// One message: its lines, and the descriptors that came with it.
#[derive(Debug)]
pub struct Message {
    lines: Vec<String>,
    pub descriptors: Vec<OwnedFd>,
}

impl Message {
    /// What stands behind `NAME=`.
    pub fn value(&self, name: &str) -> Option<&str> {
        let value = |line: &'_ str| {
            line.split_once('=')
                .filter(|(key, _)| *key == name)
                .is_some()
        };
        let line = self.lines.iter().find(|line| value(line))?;
        line.split_once('=').map(|(_, value)| value)
    }
}

impl Notify {
    pub fn new() -> Self {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        let (told, coming) = channel();
        std::thread::spawn(move || {
            // It ends with the test: an empty message is the test's own.
            loop {
                let message = receive(&socket);
                if message.lines.is_empty() || told.send(message).is_err() {
                    return;
                }
            }
        });
        Self {
            coming,
            heard: RefCell::default(),
            folder,
        }
    }

    /// The value of `NOTIFY_SOCKET`.
    pub fn path(&self) -> String {
        let path = self.folder.path().join("notify");
        path.to_str().unwrap().to_owned()
    }

    /// The first message that has this name, out of those that came and those to come.
    pub fn expect(&self, name: &str) -> Message {
        loop {
            let mut heard = self.heard.borrow_mut();
            if let Some(at) = heard.iter().position(|one| one.value(name).is_some()) {
                return heard.remove(at);
            }
            let next = self.coming.recv_timeout(DEADLINE);
            heard.push(next.expect("a message before the deadline"));
        }
    }

    /// Whether a message that has come has this name.
    pub fn has_heard(&self, name: &str) -> bool {
        let heard = self.heard.borrow();
        heard.iter().any(|one| one.value(name).is_some())
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        let end = UnixDatagram::unbound().unwrap();
        let _ = end.send_to(b"", self.folder.path().join("notify"));
    }
}

fn receive(socket: &UnixDatagram) -> Message {
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut text)];
    let got = recvmsg(socket, into, &mut control, RecvFlags::CMSG_CLOEXEC);
    let count = got.expect("a message").bytes;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    let text = String::from_utf8(text[..count].to_vec()).unwrap();
    Message {
        lines: text.lines().map(str::to_owned).collect(),
        descriptors,
    }
}
