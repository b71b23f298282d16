//! SIGUSR2: a newer process has the listening sockets, and nobody notices; or it comes to nothing, and
//! nobody notices either.

mod failures;
mod roles;
mod service;
