//! The name of an interface, which is also the name of its config file.

use std::path::Path;

/// The longest name, in bytes.
const LONGEST: usize = 15;

/// Whether `text` can be an interface's name for wg-quick.
pub fn is_name(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_allowed)
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_=+.-".contains(&byte)
}

/// Which rule the name of this config file breaks.
pub fn broken_rule(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(name) = file.strip_suffix(".conf") else {
        return format!("`{}' does not end with `.conf'", path.display());
    };
    broken_rule_of_name(name)
        .unwrap_or_else(|| format!("`{name}' cannot be the name of an interface"))
}

/// Which rule a name breaks, if `is_name` is false.
pub fn broken_rule_of_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("the name of the interface is empty".into());
    }
    if let Some(bad) = name
        .chars()
        .find(|c| !u8::try_from(*c).is_ok_and(is_allowed))
    {
        let bad = bad.escape_debug();
        return Some(format!(
            "`{name}' has a `{bad}' in it: only letters, digits and `_=+.-' are allowed in the name of an interface"
        ));
    }
    (name.len() > LONGEST).then(|| {
        format!(
            "`{name}' has {} characters: the name of an interface has at most {LONGEST}",
            name.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broken_rule_is_named() {
        for (path, part) in [
            (
                "/etc/wireguard/wg0.cnf",
                "`/etc/wireguard/wg0.cnf' does not end with `.conf'",
            ),
            ("wg0.conf.txt", "does not end with `.conf'"),
            ("/x/.conf", "the name of the interface is empty"),
            ("/x/a b.conf", "`a b' has a ` ' in it"),
            ("/x/b\u{fc}ro.conf", "`b\u{fc}ro' has a `\u{fc}' in it"),
            ("/x/wg@home.conf", "has a `@' in it"),
            (
                "sixteen-chars-xx.conf",
                "`sixteen-chars-xx' has 16 characters: the name of an interface has at most 15",
            ),
            ("...conf", "`..' cannot be the name of an interface"),
        ] {
            let rule = broken_rule(Path::new(path));
            assert!(rule.contains(part), "{rule}");
        }
        for good in ["wg0", "a_=+.-b", "fifteen-chars-x"] {
            assert!(
                is_name(good) && broken_rule_of_name(good).is_none(),
                "{good}"
            );
        }
        for bad in ["", "sixteen-chars-xx", "a/b", "a b", "b\u{fc}ro"] {
            assert!(!is_name(bad) && broken_rule_of_name(bad).is_some(), "{bad}");
        }
    }
}
