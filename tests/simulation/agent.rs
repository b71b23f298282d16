//! The agent role in the simulated world.
