//! The matrix as text: a row for each peer, and below it what failed and why.

use std::fmt::Write;

use netns_tests::trials::{Failure, Side};
use netns_tests::{Trial, Verdict};
use serde::{Deserialize, Serialize};

/// What was found of a peer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    /// Name of the peer.
    pub peer: String,
    /// What it says about its version.
    pub version: String,
    /// The cells, in the order of the columns.
    pub cells: Vec<(Trial, Cell)>,
}

/// A cell of the matrix.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    /// It was tried.
    Tried(Verdict),
    /// It was not tried, for this reason.
    NotTried(String),
}

impl Row {
    /// Whether nothing failed except for known faults of others.
    pub fn is_fine(&self) -> bool {
        self.cells.iter().all(|(_, cell)| match cell {
            Cell::Tried(verdict) => verdict.is_known(),
            Cell::NotTried(_) => true,
        })
    }
}

/// The matrix, and what failed.
pub fn text(rows: &[Row], trials: &[Trial]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |words: &[String]| {
        let (first, others) = words.split_first().expect("the peer is the first word");
        let others: String = others.iter().map(|word| format!(" {word:<9}")).collect();
        let _ = writeln!(text, "{}", format!("{first:<14}{others}").trim_end());
    };
    let names = trials.iter().map(|trial| trial.name());
    line(&[vec!["peer".into()], names.collect()].concat());
    for row in rows {
        let cells = row.cells.iter().map(|(_, cell)| word(cell).to_owned());
        line(&[vec![row.peer.clone()], cells.collect()].concat());
    }
    text.push('\n');
    for row in rows {
        match &row.cells[..] {
            [(_, Cell::NotTried(reason)), ..] => {
                let _ = writeln!(text, "{} was not tried: {reason}.", row.peer);
            }
            _ => {
                let _ = writeln!(text, "{} is {}.", row.peer, row.version);
            }
        }
    }
    for row in rows {
        for (trial, cell) in &row.cells {
            if let Cell::Tried(Verdict(failures)) = cell {
                for failure in failures {
                    text.push_str(&explanation(row, *trial, failure));
                }
            }
        }
    }
    text
}

fn word(cell: &Cell) -> &'static str {
    match cell {
        Cell::Tried(verdict) if verdict.works() => "yes",
        Cell::Tried(verdict) if verdict.is_known() => "no",
        Cell::Tried(_) => "NO",
        Cell::NotTried(_) => "not tried",
    }
}

fn explanation(row: &Row, trial: Trial, failure: &Failure) -> String {
    let peer = &row.peer;
    let end = match failure.side {
        Side::Ours => "wireguard-rs",
        Side::Theirs => peer,
    };
    let indented = |text: &str| text.trim().replace('\n', "\n    ");
    let mut text = format!(
        "\n{peer}, {}, tried of {end}: no.\n    {}\n",
        trial.name(),
        indented(&failure.error)
    );
    if let Some(said) = &failure.between_theirs {
        let _ = writeln!(text, "    Between two of theirs it {}", indented(said));
    }
    let _ = match &failure.known {
        Some(reason) => writeln!(text, "    A known fault of {peer}: {reason}"),
        None => writeln!(text, "    This is not a known fault of {peer}."),
    };
    text
}
