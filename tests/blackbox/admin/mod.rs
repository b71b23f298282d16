//! The admin address from outside, and the commands that ask it.

mod commands;
mod drain;
mod hostile;
mod leases;
mod metrics;
mod sessions;
mod settings;
mod shortage;
