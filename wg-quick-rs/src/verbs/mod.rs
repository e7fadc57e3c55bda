//! The commands, one file for each: `wg-quick-rs up` is in `up`. `random` serves several.

pub mod check;
pub mod down;
pub mod init;
pub mod people;
pub mod qr;
mod random;
pub mod reload;
pub mod reresolve;
pub mod save;
pub mod strip;
pub mod up;
