//! The rows of the table.

/// A shell line that runs `wg`, on an interface in a known state.
///
/// In the environment: `$I`, the interface; `$A`, `$B`, `$C`, public keys, of which the first two are
/// peers in [`InitialState::Full`]; `$F`, a folder of files (see `run.rs`).
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub line: &'static str,
    pub state: InitialState,
    pub ours: Ours,
    /// If our text on standard error differs in another way than `words.rs` allows: why, and a part of
    /// our text.
    pub words: Option<(&'static str, &'static str)>,
    /// The fake daemon at the socket of an interface `fake`.
    pub fake: Option<Fake>,
    /// Whether to run it only on an interface of `wireguard-rs`: other daemons cannot do it, or their
    /// result is random.
    pub our_daemon: bool,
}

/// The interface before the line is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InitialState {
    /// Key, port 7001 and fwmark; $A with all settings, $B with only an IPv6 endpoint.
    Full,
    /// Like `Full`, but with $A as the only peer.
    One,
    /// No settings at all.
    Empty,
}

/// A fake daemon.
#[derive(Debug, Clone, Copy)]
pub enum Fake {
    /// Answers every request with this text, and closes the connection.
    Says(&'static str),
    /// Leaves a socket at which nobody listens.
    Stale,
}

/// How the program of this workspace behaves.
#[derive(Debug, Clone, Copy)]
pub enum Ours {
    /// Like the other program.
    Same,
    /// Like wireguard-tools after 2021, for this reason; with an older `wg` this outcome is expected.
    Newer(&'static str, Outcome),
    /// Differently, for this reason.
    Departs(&'static str, Outcome),
}

/// The expected result of a row on which we differ.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub code: i32,
    pub stdout: &'static str,
    /// A part of the text on standard error; empty if there must be none.
    pub stderr: &'static str,
    pub then: Then,
}

/// The interface afterwards.
#[derive(Debug, Clone, Copy)]
pub enum Then {
    /// Unchanged.
    Unchanged,
    /// In the state that the other program leaves after this line.
    After(&'static str),
}

/// A line on which both programs agree.
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

/// A line that our program refuses with this text, and that changes nothing.
pub const fn refused(line: &'static str, why: &'static str, stderr: &'static str) -> Case {
    let outcome = Outcome {
        code: 1,
        stdout: "",
        stderr,
        then: Then::Unchanged,
    };
    departs(line, why, outcome)
}

/// A line on which the programs differ.
pub const fn departs(line: &'static str, why: &'static str, outcome: Outcome) -> Case {
    let mut case = same(line);
    case.ours = Ours::Departs(why, outcome);
    case
}

/// A line that newer tools accept without output: the state is then that after the line `then`.
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
