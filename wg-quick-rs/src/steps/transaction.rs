//! Steps are done one by one, and what would undo them is kept. On failure, and on a signal, that
//! is done, the last first.
//!
//! ```text
//! step ─► shown ─► done ─► its undoing kept ─► … ─► commit: nothing left to undo
//!                   └ failed, or a signal ─► undo: what was kept, in reverse ─► exit code
//! ```

use std::mem;
use std::process::ExitCode;

use crate::steps::console;
use crate::steps::failure::Failure;
use crate::steps::lock::Turn;
use crate::steps::signals::{Phase, Signals};
use crate::steps::state::State;
use crate::steps::step::Step;
use crate::steps::target::Target;

/// Runs `work` on an interface that nobody else works on, and undoes what it did if it fails.
pub fn with(
    interface: &str,
    work: impl FnOnce(&mut Transaction) -> Result<(), Failure>,
) -> ExitCode {
    run(interface, false, work)
}

/// As [`with`], to take the interface away: one that waits for names, to bring it up, is ended.
pub fn to_end(
    interface: &str,
    work: impl FnOnce(&mut Transaction) -> Result<(), Failure>,
) -> ExitCode {
    run(interface, true, work)
}

fn run(
    interface: &str,
    ends_waiting: bool,
    work: impl FnOnce(&mut Transaction) -> Result<(), Failure>,
) -> ExitCode {
    let ready = Target::new(interface).and_then(|target| {
        let signals = Signals::new()?;
        let turn = Turn::of_interface(interface, ends_waiting, &signals)?;
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

/// Does and undoes. See the head of the file.
#[derive(Debug)]
pub struct Transaction {
    /// What is worked on.
    pub target: Target,
    /// What may end it.
    pub signals: Signals,
    /// Our turn to work on it.
    turn: Turn,
    /// What is known of what was done to the interface. `None` where nothing was recorded.
    pub state: Option<State>,
    /// What was known before of an interface of this name whose daemon was killed.
    pub state_before: Option<State>,
    /// What would undo the steps done, the last one last.
    undo: Vec<Step>,
}

impl Transaction {
    /// Does a step.
    ///
    /// # Errors
    /// It failed, or a signal came before or meanwhile.
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
        // A program that a signal ended did not fail by itself.
        self.check()?;
        match done {
            Err(failure) if self.signal().is_some() => {
                console::error(failure);
                Ok(())
            }
            done => done,
        }
    }

    /// Does a step that may fail: then that is said, and no reason to stop.
    ///
    /// # Errors
    /// A signal came before or meanwhile.
    pub fn attempt(&mut self, step: Step) -> Result<(), Failure> {
        match self.run(step) {
            Err(failure @ (Failure::Message(_) | Failure::Hook(..))) => {
                console::error(format_args!("{failure}; going on"));
                Ok(())
            }
            done => done,
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

    /// A hook may have run `reload`, or `save`.
    fn take_state(&mut self) {
        if let Some(state) = &mut self.state
            && let Ok(Some(now)) = State::load(&state.interface)
            && now.link == state.link
        {
            *state = now;
        }
    }

    /// Whether another one, that was about to bring the interface up, was ended for us.
    pub fn ended_other(&self) -> bool {
        self.turn.ended_other
    }

    /// Whether we wait for names to be resolved: then `down` need not wait for us.
    pub fn waits_for_names(&self, waits: bool) {
        if let Some(lock) = &self.turn.lock {
            lock.hold(waits);
        }
    }

    /// Nothing of the interface is left, and so nothing is known of it.
    pub fn forget(&mut self) {
        if let Some(state) = self.state.take() {
            state.remove();
        }
    }

    /// Writes what is known. Whoever runs next may want to know it.
    pub fn save_state(&self) {
        if let Some(state) = &self.state
            && let Err(error) = state.save()
        {
            console::note(format_args!(
                "What was done to `{}' cannot be recorded: {error}.",
                state.interface
            ));
        }
    }

    /// Where there is no way back, the rest is done first.
    ///
    /// # Errors
    /// A signal came.
    pub fn check(&self) -> Result<(), Failure> {
        match self.signal() {
            Some(signal) if self.signals.phase == Phase::Doing => Err(signal),
            _ => Ok(()),
        }
    }

    fn signal(&self) -> Option<Failure> {
        self.signals.caught().map(Failure::Signal)
    }

    /// There is no way back from here, only forward.
    fn commit(&mut self) {
        self.undo.clear();
        if self.signals.phase == Phase::Doing {
            self.signals.phase = Phase::Committed;
        }
    }

    /// What was done so far stays.
    pub fn keep(&mut self) {
        self.undo.clear();
    }

    /// Undoes what was done, if it did not end well; the exit code.
    fn end(mut self, result: Result<(), Failure>) -> ExitCode {
        // What a signal ended did not fail by itself.
        let signal = self.signal().map_or(Ok(()), Err);
        let Err(failure) = signal.and(result) else {
            self.save_state();
            return ExitCode::SUCCESS;
        };
        console::error(&failure);
        self.signals.phase = Phase::Undoing;
        // What goes with the link need not be taken off it first.
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
                console::error(format_args!("cannot be undone: {error}"));
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
