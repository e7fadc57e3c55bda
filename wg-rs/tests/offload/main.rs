//! The byte-level parts of the data path against a naive model, with random and adversarial input.

mod check;
mod coalesce;
mod model;
mod packet;
mod rules;
mod segment;
