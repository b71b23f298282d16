//! The newer process's side: it finds the channel, takes the sockets, and tells how far it is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use socket2::SockRef;

use super::super::StartError;
use super::super::signals::Stopper;
use super::giving::ask_control;
use super::{ALL, CHECKED, Channel, MAIN, MOST, SERVING, SOCKET, VARIABLE, VERSION, YOURS};
use crate::control::{Files, Request};

/// What this process is to take from an older one.
pub(in super::super) struct Taking {
    channel: Channel,
}

impl Taking {
    /// Nothing where no older process has started this one.
    pub(in super::super) fn find() -> Result<Option<Self>, StartError> {
        let Some(version) = std::env::var_os(VARIABLE).filter(|word| !word.is_empty()) else {
            return Ok(None);
        };
        if version != VERSION {
            let version = version.to_string_lossy();
            let version = crate::config::plain(&version);
            return Err(StartError::Handover(format!(
                "the older process speaks version {version} of its words, and this one version {VERSION}; \
                 stop that one and start this one"
            )));
        }
        let end = io::stdin().as_fd().try_clone_to_owned();
        let channel = end.and_then(Channel::over);
        let channel = channel.map_err(|error| StartError::System("take the channel", error))?;
        Ok(Some(Self { channel }))
    }

    /// The sockets and their names.
    pub(in super::super) fn sockets(&self) -> Result<Vec<(OwnedFd, String)>, StartError> {
        let until = Some(Instant::now() + GIVING);
        let mut sockets = Vec::new();
        loop {
            let heard = self.channel.await_word(until, || false);
            let heard = heard.map_err(gone)?.ok_or_else(silent)?;
            if heard.word == ALL {
                return Ok(sockets);
            }
            let name = heard.word.strip_prefix(SOCKET);
            let socket = heard.descriptors.into_iter().next();
            let (Some(name), Some(socket)) = (name, socket) else {
                return Err(unexpected(&heard.word));
            };
            if sockets.len() == MOST {
                return Err(StartError::Handover("too many sockets".to_owned()));
            }
            // What is nobody's here must not get into what this process starts later.
            let closes = SockRef::from(&socket).set_cloexec(true);
            closes.map_err(|error| StartError::System("take a socket", error))?;
            sockets.push((socket, name.to_owned()));
        }
    }

    /// Everything but the store is open: waits for that.
    pub(in super::super) fn await_store(&self) -> Result<(), StartError> {
        self.channel.say(CHECKED).map_err(gone)?;
        let until = Some(Instant::now() + CLOSING);
        let heard = self.channel.await_word(until, || false);
        match heard.map_err(gone)?.ok_or_else(silent)?.word {
            word if word == YOURS => Ok(()),
            word => Err(unexpected(&word)),
        }
    }

    /// Everything is served: waits until this is the main process, and has the control thread begin.
    /// True when it is: a server that ends meanwhile never becomes it.
    pub(in super::super) fn succeed(self, control: &Sender<Request>, stopper: &Stopper) -> bool {
        let heard = self.channel.say(SERVING).and_then(|()| {
            // The older process has nothing more to wait for.
            self.channel.await_word(None, || stopper.is_ending())
        });
        let is_main = match &heard {
            Ok(Some(heard)) => heard.word == MAIN,
            Ok(None) => false,
            Err(error) => {
                // It would have killed this one if it meant to go on.
                log::warn!("handover: the older process is gone ({error}); this one serves");
                true
            }
        };
        let files = match is_main {
            true => Files::Open,
            false => Files::Leave,
        };
        if let Err(why) = ask_control(control, files) {
            log::error!("handover: {why}");
        }
        is_main
    }
}

fn gone(error: io::Error) -> StartError {
    StartError::Handover(format!("the older process is gone or goes on: {error}"))
}

fn silent() -> StartError {
    StartError::Handover("the older process says nothing".to_owned())
}

fn unexpected(word: &str) -> StartError {
    let word = crate::config::plain(word);
    StartError::Handover(format!("the older process says {word}, out of turn"))
}

/// How long the older process may take to give its sockets.
const GIVING: Duration = Duration::from_secs(10);

/// How long it may take to close the store: it may have a slow disk to wait for.
const CLOSING: Duration = Duration::from_secs(30);
