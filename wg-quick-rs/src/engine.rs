//! Steps are done one by one, and what would undo them is kept. On failure, and on a signal, that
//! is done, the last first.
//!
//! ```text
//! step ─► shown ─► done ─► its undoing kept ─► … ─► commit: nothing to undo any more
//!                   └ failed, or a signal ─► undo: what was kept, in reverse ─► exit code
//! ```

use std::process::ExitCode;

use crate::console;
use crate::failure::Failure;
use crate::lock::Lock;
use crate::step::Step;
use crate::world::World;

/// Runs `work` on an interface that nobody else works on, and undoes what it did if it fails.
pub fn with(interface: &str, work: impl FnOnce(&mut Engine) -> Result<(), Failure>) -> ExitCode {
    let ready = Lock::of_interface(interface).and_then(|lock| Ok((lock, World::new(interface)?)));
    let (_lock, mut engine) = match ready {
        Ok((lock, world)) => {
            let undo = Vec::new();
            (lock, Engine { world, undo })
        }
        Err(failure) => {
            console::error(&failure);
            return failure.code();
        }
    };
    let result = work(&mut engine);
    engine.end(result)
}

/// Does and undoes. See the head of the file.
#[derive(Debug)]
pub struct Engine {
    /// What is worked on.
    pub world: World,
    /// What would undo the steps done, the last one last.
    undo: Vec<Step>,
}

impl Engine {
    /// Does a step.
    ///
    /// # Errors
    /// It failed, or a signal came before or meanwhile.
    pub fn run(&mut self, step: Step) -> Result<(), Failure> {
        self.check()?;
        step.show(&self.world);
        let done = step.run(&mut self.world, &mut self.undo);
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
            Err(Failure::Message(message)) => {
                console::error(format_args!("{message}; going on"));
                Ok(())
            }
            done => done,
        }
    }

    /// Where there is no way back, the rest is done first.
    ///
    /// # Errors
    /// A signal came.
    pub fn check(&self) -> Result<(), Failure> {
        match self.signal() {
            Some(signal) if !self.world.is_ending() => Err(signal),
            _ => Ok(()),
        }
    }

    fn signal(&self) -> Option<Failure> {
        self.world.signals.caught().map(Failure::Signal)
    }

    /// What was done so far stays.
    pub fn commit(&mut self) {
        self.undo.clear();
    }

    /// Undoes what was done, if it did not end well; the exit code.
    fn end(mut self, result: Result<(), Failure>) -> ExitCode {
        // What a signal ended did not fail by itself.
        let signal = self.signal().map_or(Ok(()), Err);
        let Err(failure) = signal.and(result) else {
            return ExitCode::SUCCESS;
        };
        console::error(&failure);
        self.world.begin_to_undo();
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
        for step in self.undo.into_iter().rev() {
            step.show(&self.world);
            if let Err(error) = step.run(&mut self.world, &mut Vec::new()) {
                console::error(format_args!("cannot be undone: {error}"));
                undone = false;
            }
        }
        if undone {
            console::note(format_args!(
                "`{}' is as it was before.",
                self.world.interface
            ));
        }
        failure.code()
    }
}
