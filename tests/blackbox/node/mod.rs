//! The node role from outside: raw nodes and visitors against the real program, and `towpath node`.

mod vectors;
