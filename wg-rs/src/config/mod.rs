//! The configuration file of `wg` and the arguments of `wg set`, as settings of an interface.
