//! Threads of the system, with locks whose code ThreadSanitizer sees: those of the standard library would have to be
//! built for it, which the stable toolchain cannot do.

pub use std::sync::{Arc, PoisonError, Weak, atomic};
pub use std::thread;
use std::time::Duration;

pub use parking_lot::MutexGuard;

type Locked<'a, T> = Result<MutexGuard<'a, T>, PoisonError<MutexGuard<'a, T>>>;

#[derive(Default)]
pub struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Mutex(parking_lot::Mutex::new(value))
    }

    pub fn lock(&self) -> Locked<'_, T> {
        Ok(self.0.lock())
    }
}

#[derive(Default)]
pub struct Condvar(parking_lot::Condvar);

impl Condvar {
    pub const fn new() -> Self {
        Condvar(parking_lot::Condvar::new())
    }

    pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> Locked<'a, T> {
        self.0.wait(&mut guard);
        Ok(guard)
    }

    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        limit: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> Result<(MutexGuard<'a, T>, bool), PoisonError<(MutexGuard<'a, T>, bool)>> {
        let timed_out = self
            .0
            .wait_while_for(&mut guard, condition, limit)
            .timed_out();
        Ok((guard, timed_out))
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
