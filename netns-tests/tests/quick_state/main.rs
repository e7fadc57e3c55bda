//! `wg-quick-rs` acts by what `up` did and recorded, not by what its file or a name may mean by now.

mod killed;
mod record;
mod surroundings;
mod test_host;
