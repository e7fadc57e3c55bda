//! The ways in which our texts on standard error may differ from those of `wg`, each with its reason.
//! Any other difference must be listed in the row of the table.

/// Our texts begin with the place of an error: an argument, a key, a file, a line of a file.
const PLACES: [&str; 17] = [
    "listen-port",
    "fwmark",
    "private-key",
    "peer",
    "preshared-key",
    "endpoint",
    "persistent-keepalive",
    "allowed-ips",
    "ListenPort",
    "FwMark",
    "PrivateKey",
    "PublicKey",
    "PresharedKey",
    "Endpoint",
    "PersistentKeepalive",
    "AllowedIPs",
    "nosuch",
];
/// The beginnings of hints that only our texts have.
const HINTS: [&str; 13] = [
    " (did you mean ",
    " (a key of wg-quick;",
    " (it belongs in ",
    " (write `",
    " (the value after ",
    " (a line ",
    " (the sections are ",
    " (a comment begins ",
    " (the prefix length of ",
    " (an IPv4 address is ",
    " (an endpoint is ",
    " (neither an address ",
    " (a host with ",
];
/// The beginning of a line of ours after an error that only has an errno.
const EXPLANATION: &str = "UDP port ";
/// `wg` prints these lines after an error in a file.
const AFTERWARDS: [&str; 2] = ["Configuration parsing error", "Invalid configuration"];

/// The reasons for which two texts differ; `None` if they differ in any other way.
pub fn departures(theirs: &str, ours: &str) -> Option<Vec<&'static str>> {
    let mut reasons = Vec::new();
    let mut because = |reason: &'static str, is_so: bool| {
        if is_so && !reasons.contains(&reason) {
            reasons.push(reason);
        }
    };
    let mut alike = Vec::new();
    for line in ours.lines() {
        if line.starts_with(EXPLANATION) {
            because("another line says what is in the way", true);
            continue;
        }
        let (rest, placed) = without_place(line);
        because("an error names the argument, or file, line and key", placed);
        let (rest, hint) = without_hint(rest);
        because("an error has a hint", hint);
        alike.push(rest.to_owned());
    }
    let mut expected = Vec::new();
    for line in theirs.lines() {
        if AFTERWARDS.contains(&line) {
            because("an error in a file is one line", true);
            continue;
        }
        let mut line = line.to_owned();
        if let Some(rest) = line.strip_prefix("fopen: ") {
            line = rest.to_owned();
            because("an error names the argument, or file, line and key", true);
        }
        expected.push(line);
    }
    if alike.len() != expected.len() {
        return None;
    }
    for (ours, theirs) in alike.iter().zip(&expected) {
        let (ours, theirs) = (ours.as_str(), theirs.as_str());
        let both = |start: &str| ours.starts_with(start) && theirs.starts_with(start);
        if ours == theirs {
            continue;
        }
        if both("Key is not the correct length or format")
            || both("Found trailing character")
            || both("Line unrecognized: `") && key(ours) == key(theirs)
        {
            because("a text that may be a key is not repeated", true);
        } else if ours.starts_with("Port is neither 0-65535 nor the name of a service: `")
            && theirs.starts_with("Servname not supported for ai_socktype: `")
        {
            because("the text about an invalid port is plain", true);
        } else {
            return None;
        }
    }
    Some(reasons)
}

/// The text without a place such as `argument: `, `FILE:LINE: ` or `Key: ` at its beginning.
fn without_place(line: &str) -> (&str, bool) {
    let mut rest = line;
    while let Some((place, behind)) = rest.split_once(": ") {
        let is_file = place.starts_with('/') || place.is_empty();
        let in_file = place
            .split_once(':')
            .is_some_and(|(_, number)| number.parse::<u32>().is_ok());
        if !is_file && !in_file && !PLACES.contains(&place) {
            break;
        }
        rest = behind;
    }
    (rest, rest.len() < line.len())
}

/// The text without a hint in parentheses at its end.
fn without_hint(line: &str) -> (&str, bool) {
    let start = HINTS.iter().find_map(|hint| line.find(hint));
    match start.filter(|_| line.ends_with(')')) {
        Some(start) => (&line[..start], true),
        None => (line, false),
    }
}

/// The key in "Line unrecognized: `KEY=VALUE'", in either form.
fn key(line: &str) -> &str {
    let line = line.trim_start_matches("Line unrecognized: `");
    line.split(['=', ':', '\'']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_differences_are_accepted() {
        for (theirs, ours, reasons) in [
            ("Invalid argument: x\n", "Invalid argument: x\n", 0),
            (
                "Unable to parse empty port\n",
                "listen-port: Unable to parse empty port\n",
                1,
            ),
            (
                "Line unrecognized: `FwMarks=1'\nConfiguration parsing error\n",
                "f:2: Line unrecognized: `FwMarks' (did you mean `FwMark'?)\n",
                4,
            ),
            (
                "Unable to modify interface: Address already in use\n",
                "Unable to modify interface: Address already in use\nUDP port 53 is already used by x\n",
                1,
            ),
            (
                "fopen: No such file or directory\n",
                "private-key: /x: No such file or directory\n",
                1,
            ),
        ] {
            let found = departures(theirs, ours);
            assert_eq!(found.map(|found| found.len()), Some(reasons), "{ours}");
        }
        for (theirs, ours) in [
            ("Unable to parse empty port\n", ""),
            ("Unable to parse empty port\n", "fwmark: Invalid\n"),
            (
                "Line unrecognized: `A=1'\n",
                "f:2: Line unrecognized: `B'\n",
            ),
            ("", "Warning: something\n"),
        ] {
            assert_eq!(departures(theirs, ours), None, "{ours}");
        }
    }
}
