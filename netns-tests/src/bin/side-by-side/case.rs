//! What a row of the table is.

/// A shell line that runs `wg`, on an interface in a known state.
///
/// In the environment: `$I`, the interface; `$A`, `$B`, `$C`, public keys, of which the first two are
/// peers in [`InitialState::Full`]; `$F`, a folder of files (see `run.rs`).
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub line: &'static str,
    pub state: InitialState,
    pub ours: Ours,
    /// Our words on standard error are others than `words.rs` allows: why, and a part of them.
    pub words: Option<(&'static str, &'static str)>,
    /// What answers at the socket of an interface `fake`.
    pub fake: Option<Fake>,
    /// Only where the interface is kept by the daemon of this workspace: others cannot do it, or
    /// have it at random.
    pub our_daemon: bool,
}

/// The interface before the line is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InitialState {
    /// Key, port 7001, fwmark; $A with everything, $B with nothing but an endpoint of IPv6.
    Full,
    /// As the first, but $A is the only peer.
    One,
    /// Nothing at all.
    Empty,
}

/// A daemon that is none.
#[derive(Debug, Clone, Copy)]
pub enum Fake {
    /// Answers every request so, and closes.
    Says(&'static str),
    /// Nobody listens at its socket.
    Stale,
}

/// What the program of this workspace does.
#[derive(Debug, Clone, Copy)]
pub enum Ours {
    /// The same.
    Same,
    /// The same as wireguard-tools since 2021 do; so compared with those, and this with older ones.
    Newer(&'static str, Outcome),
    /// Something else, for this reason.
    Departs(&'static str, Outcome),
}

/// How a departure is to come out.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub code: i32,
    pub stdout: &'static str,
    /// A part of it; nothing for silence.
    pub stderr: &'static str,
    pub then: Then,
}

/// The interface afterwards.
#[derive(Debug, Clone, Copy)]
pub enum Then {
    /// As it was.
    Unchanged,
    /// As the other program leaves it after this line.
    After(&'static str),
}

/// A line on which both agree.
pub const fn same(line: &'static str) -> Case {
    Case {
        line,
        state: InitialState::Full,
        ours: Ours::Same,
        words: None,
        fake: None,
        our_daemon: false,
    }
}

/// A line with which we fail, saying this, and change nothing.
pub const fn refused(line: &'static str, why: &'static str, stderr: &'static str) -> Case {
    let outcome = Outcome {
        code: 1,
        stdout: "",
        stderr,
        then: Then::Unchanged,
    };
    departs(line, why, outcome)
}

/// A line on which we differ.
pub const fn departs(line: &'static str, why: &'static str, outcome: Outcome) -> Case {
    let mut case = same(line);
    case.ours = Ours::Departs(why, outcome);
    case
}

/// A line that succeeds silently as with newer tools: the state is that after `then`.
pub const fn newer(line: &'static str, why: &'static str, then: &'static str) -> Case {
    let outcome = Outcome {
        code: 0,
        stdout: "",
        stderr: "",
        then: Then::After(then),
    };
    let mut case = same(line);
    case.ours = Ours::Newer(why, outcome);
    case
}

impl Case {
    pub const fn on(mut self, state: InitialState) -> Case {
        self.state = state;
        self
    }

    pub const fn says(mut self, text: &'static str, why: &'static str) -> Case {
        self.words = Some((why, text));
        self
    }

    pub const fn fake(mut self, says: &'static str) -> Case {
        self.fake = Some(Fake::Says(says));
        self
    }

    pub const fn stale(mut self) -> Case {
        self.fake = Some(Fake::Stale);
        self
    }

    pub const fn our_daemon(mut self) -> Case {
        self.our_daemon = true;
        self
    }
}
