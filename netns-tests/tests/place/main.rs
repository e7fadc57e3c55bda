//! `wg-rs link`: interfaces are created, listed, moved with their session and deleted. Where that fails,
//! everything stays as it was.

mod adding;
mod finding;
mod moving;
mod pair;
