//! The tunnel role from outside: services behind `towpath expose`, and who visits them.

mod basics;
