//! Compares the byte-level parts of the data path with a simple model, on random and adversarial
//! input.

mod check;
mod coalesce;
mod model;
mod packet;
mod rules;
mod segment;
