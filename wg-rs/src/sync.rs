//! Threads, locks and atomics of the standard library. Files that are tested under many orders of their
//! threads' steps take them from here, because `interleavings/` replaces this file by one whose steps it
//! controls.

pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, atomic};
pub(crate) use std::thread;
