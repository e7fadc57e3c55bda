//! `--netns NAMESPACE`: runs a command in another network namespace.

use std::ffi::OsString;

use crate::place::{self, Namespace};

/// Removes `--netns NAMESPACE` or `--netns=NAMESPACE` from `args` if it is at `position`.
pub(super) fn take(args: &mut Vec<OsString>, position: usize) -> Result<Option<Namespace>, String> {
    let Some(first) = args.get(position).map(|first| first.to_string_lossy()) else {
        return Ok(None);
    };
    let (name, taken) = if first == "--netns" {
        let Some(name) = args.get(position + 1) else {
            return Err("--netns needs the name of a namespace".into());
        };
        (name.to_string_lossy(), 2)
    } else if let Some(name) = first.strip_prefix("--netns=") {
        (name.into(), 1)
    } else {
        return Ok(None);
    };
    let netns = name
        .parse()
        .map_err(|error: place::Error| error.to_string())?;
    args.drain(position..position + taken);
    Ok(Some(netns))
}

/// Enters the namespace permanently. There must be no other thread.
pub(super) fn enter(netns: &Namespace) -> Result<(), place::Error> {
    Ok(netns.open()?.enter()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_before_or_after_the_command() {
        let take = |words: &[&str], position| {
            let mut args: Vec<OsString> = words.iter().map(Into::into).collect();
            let netns = take(&mut args, position);
            netns.map(|netns| (netns.map(|netns| netns.to_string()), args.len()))
        };
        assert_eq!(take(&[], 0), Ok((None, 0)));
        assert_eq!(take(&["show", "--netns", "a"], 0), Ok((None, 3)));
        assert_eq!(
            take(&["show", "--netns", "a"], 1),
            Ok((Some("a".into()), 1))
        );
        assert_eq!(take(&["--netns", "a"], 0), Ok((Some("a".into()), 0)));
        assert_eq!(
            take(&["--netns", "pid:1", "show"], 0),
            Ok((Some("pid:1".into()), 1))
        );
        assert_eq!(take(&["--netns=a", "show"], 0), Ok((Some("a".into()), 1)));
        assert!(take(&["--netns"], 0).is_err());
        assert!(take(&["--netns="], 0).is_err());
        assert!(take(&["--netns", "pid:x"], 0).is_err());
    }
}
