//! A transaction does steps one by one, and keeps the steps that undo them. After a failure or a signal
//! it undoes what was done, the last step first.
//!
//! ```text
//! step ─► shown ─► done ─► the step that undoes it is kept ─► … ─► commit: nothing to undo
//!                   └ failed, or a signal ─► undo: the steps that were kept, in reverse ─► exit code
//! ```

use std::mem;
use std::process::ExitCode;

use crate::file::{Error, File, Location};
use crate::steps::console;
use crate::steps::failure::Failure;
use crate::steps::lock::InterfaceLock;
use crate::steps::signals::{Phase, Signals};
use crate::steps::state::State;
use crate::steps::step::Step;
use crate::steps::target::Target;

/// Runs `work` on an interface that is locked for it, and undoes what it did if it fails.
pub fn with(
    interface: &str,
    work: impl FnOnce(&mut Transaction) -> Result<(), Failure>,
) -> ExitCode {
    run(interface, false, work)
}

/// Like [`with`], to take the interface down: an `up` that still waits for names is ended.
pub fn to_end(
    interface: &str,
    work: impl FnOnce(&mut Transaction) -> Result<(), Failure>,
) -> ExitCode {
    run(interface, true, work)
}

/// Runs `work` on a file, which must have no errors, and its interface, which is locked for it. The
/// file is read under the lock, because another command may have written it while this one waited.
pub fn with_file(
    location: &Location,
    work: impl FnOnce(&mut Transaction, &File) -> Result<(), Failure>,
) -> ExitCode {
    with(&location.interface, |transaction| {
        let (file, errors) = location.read_leniently().map_err(Failure::new)?;
        without(errors)?;
        work(transaction, &file)
    })
}

/// Fails if a file has errors.
///
/// # Errors
/// The last of these errors. The others are printed here.
pub fn without(errors: Vec<Error>) -> Result<(), Failure> {
    let Some((last, others)) = errors.split_last() else {
        return Ok(());
    };
    others.iter().for_each(console::error);
    Err(Failure::new(last))
}

fn run(
    interface: &str,
    ends_waiting: bool,
    work: impl FnOnce(&mut Transaction) -> Result<(), Failure>,
) -> ExitCode {
    let ready = Target::new(interface).and_then(|target| {
        let signals = Signals::new()?;
        let turn = InterfaceLock::of_interface(interface, ends_waiting, &signals)?;
        Ok((target, signals, turn))
    });
    let mut transaction = match ready {
        Ok((target, signals, turn)) => Transaction {
            target,
            signals,
            turn,
            state: None,
            state_before: None,
            undo: Vec::new(),
        },
        Err(failure) => {
            console::error(&failure);
            return failure.code();
        }
    };
    let result = work(&mut transaction);
    transaction.end(result)
}

/// Does steps and undoes them. See the head of the file.
#[derive(Debug)]
pub struct Transaction {
    /// The interface.
    pub target: Target,
    /// The signals that may end the transaction.
    pub signals: Signals,
    /// The lock of the interface.
    turn: InterfaceLock,
    /// The record of what was done to the interface; `None` if there is none.
    pub state: Option<State>,
    /// The record of an earlier interface of this name whose daemon was killed.
    pub state_before: Option<State>,
    /// The steps that undo what was done, in the order of the steps done.
    undo: Vec<Step>,
}

impl Transaction {
    /// Does a step.
    ///
    /// # Errors
    /// The step failed, or a signal arrived.
    pub fn run(&mut self, step: Step) -> Result<(), Failure> {
        self.check()?;
        step.show(&self.target);
        if step.is_others() {
            self.save_state();
        }
        let is_others = step.is_others();
        let done = self.do_recorded(step);
        if is_others {
            self.take_state();
        }
        // If a signal ended a program, the signal is the error.
        self.check()?;
        match done {
            Err(failure) if self.signal().is_some() => {
                console::error(failure);
                Ok(())
            }
            done => done,
        }
    }

    /// Does a step that may fail: a failure is printed and returned, and the command goes on. What the
    /// step was to remove stays in the record.
    ///
    /// # Errors
    /// A signal arrived.
    pub fn attempt(&mut self, step: Step) -> Result<Option<Failure>, Failure> {
        let before = match step.is_others() {
            true => None,
            false => self.state.clone(),
        };
        match self.run(step) {
            Ok(()) => Ok(None),
            Err(signal @ Failure::Signal(_)) => Err(signal),
            Err(failure) => {
                console::error(format_args!("{failure}; going on"));
                if before.is_some() {
                    self.state = before;
                }
                Ok(Some(failure))
            }
        }
    }

    fn do_recorded(&mut self, step: Step) -> Result<(), Failure> {
        let mut undo = Vec::new();
        let is_final = step.is_final();
        let done = step.run(&mut self.target, &self.signals, &mut undo);
        if let Some(state) = &mut self.state {
            undo.iter().for_each(|step| step.record(state));
        }
        if is_final && done.is_ok() {
            self.commit();
        }
        if self.signals.phase != Phase::Committed {
            self.undo.extend(undo);
        }
        done
    }

    /// Reads the record again after a hook, which may have run `reload` or `save`.
    fn take_state(&mut self) {
        if let Some(state) = &mut self.state
            && let Ok(Some(now)) = State::load(&state.interface)
            && now.link == state.link
        {
            *state = now;
        }
    }

    /// Whether another process, which was about to bring the interface up, was ended.
    pub fn ended_other(&self) -> bool {
        self.turn.ended_other
    }

    /// Notes in the lock whether this process waits for names: then `down` may end it.
    pub fn waits_for_names(&self, waits: bool) {
        if let Some(lock) = &self.turn.lock {
            lock.hold(waits);
        }
    }

    /// Removes the record: nothing of the interface is left.
    pub fn forget(&mut self) {
        if let Some(state) = self.state.take() {
            state.remove();
        }
    }

    /// Writes the record, for commands that run later.
    pub fn save_state(&self) {
        if let Some(state) = &self.state
            && let Err(error) = state.save()
        {
            console::note(format_args!(
                "The record of what `up' did to `{}' cannot be written: {error}.",
                state.interface
            ));
        }
    }

    /// Checks for a signal. After the commit a signal is no error, as the rest must be done first.
    ///
    /// # Errors
    /// A signal arrived.
    pub fn check(&self) -> Result<(), Failure> {
        match self.signal() {
            Some(signal) if self.signals.phase == Phase::Doing => Err(signal),
            _ => Ok(()),
        }
    }

    fn signal(&self) -> Option<Failure> {
        self.signals.caught().map(Failure::Signal)
    }

    /// From here on nothing is undone, and signals wait until the work is done.
    fn commit(&mut self) {
        self.undo.clear();
        if self.signals.phase == Phase::Doing {
            self.signals.phase = Phase::Committed;
        }
    }

    /// Keeps what was done so far: it will not be undone.
    pub fn keep(&mut self) {
        self.undo.clear();
    }

    /// Undoes what was done if the work failed. Returns the exit code.
    fn end(mut self, result: Result<(), Failure>) -> ExitCode {
        // If a signal ended the work, the signal is the error.
        let signal = self.signal().map_or(Ok(()), Err);
        let Err(failure) = signal.and(result) else {
            self.save_state();
            return ExitCode::SUCCESS;
        };
        if !matches!(failure, Failure::Told(_)) {
            console::error(&failure);
        }
        self.signals.phase = Phase::Undoing;
        // What disappears with the link need not be undone before the link is deleted.
        let link_goes = self
            .undo
            .iter()
            .any(|step| matches!(step, Step::DeleteLink));
        self.undo.retain(|step| !(link_goes && step.is_of_link()));
        if self.undo.is_empty() {
            return failure.code();
        }
        console::note("Undoing what was done.");
        let mut undone = true;
        for step in mem::take(&mut self.undo).into_iter().rev() {
            step.show(&self.target);
            if let Err(error) = self.do_recorded(step) {
                console::error(format_args!("cannot undo this step: {error}"));
                undone = false;
            }
        }
        if undone && link_goes {
            self.forget();
            self.state = self.state_before.take();
        }
        self.save_state();
        if undone {
            console::note(format_args!(
                "`{}' is as it was before.",
                self.target.interface
            ));
        }
        failure.code()
    }
}
