//! `wg-quick-rs` uses the record of `up`. It does not infer anything from names, or from a changed file.

mod killed;
mod record;
mod surroundings;
mod test_host;
