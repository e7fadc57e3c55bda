//! No two files of a room import each other: whoever reads one need not read the other first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folders of `wg-rs/src` where it holds.
const ROOMS: [&str; 3] = ["backend", "place", "tool"];

/// A module, by its path from the root of the crate.
type Module = Vec<String>;

/// The modules in a folder and those below, and their files.
fn modules(root: &Path, folder: &Path, found: &mut BTreeMap<Module, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            modules(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.with_extension("");
            let name = name.strip_prefix(root).unwrap_or(&name);
            let parts = name.iter().map(|part| part.to_string_lossy().into_owned());
            let module = parts.filter(|part| part != "mod").collect();
            found.insert(module, path);
        }
    }
    Ok(())
}

/// The paths in the text of a `use`, with the braces resolved.
fn expand(prefix: &str, text: &str, paths: &mut Vec<String>) {
    let (mut depth, mut start) = (0, 0);
    let ends = text.char_indices().chain([(text.len(), ',')]);
    for (at, c) in ends {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = text[start..at].trim();
                match item.split_once('{') {
                    Some((before, inner)) => {
                        let inner = inner.trim_end().trim_end_matches('}');
                        // Braces inside of these are whole: one was cut off for one opened.
                        let open = inner.matches('{').count() - inner.matches('}').count();
                        let inner = format!("{inner}{}", "}".repeat(open));
                        expand(&format!("{prefix}{before}"), &inner, paths);
                    }
                    None if !item.is_empty() => paths.push(format!("{prefix}{item}")),
                    None => {}
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The module that a path leads to or into.
fn target(from: &[String], path: &str, all: &BTreeMap<Module, PathBuf>) -> Option<Module> {
    let mut parts = path.split("::").map(str::trim).peekable();
    let mut module = match parts.next()? {
        "crate" => Module::new(),
        "self" => from.to_vec(),
        "super" => from[..from.len() - 1].to_vec(),
        _ => return None,
    };
    while parts.next_if(|part| *part == "super").is_some() {
        module.pop();
    }
    for part in parts {
        module.push(part.to_owned());
        if !all.contains_key(&module) {
            module.pop();
            break;
        }
    }
    (all.contains_key(&module) && module != from).then_some(module)
}

/// The modules that a file imports, its tests apart.
fn imports(module: &[String], text: &str, all: &BTreeMap<Module, PathBuf>) -> BTreeSet<Module> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut paths = Vec::new();
    for statement in code.split(';') {
        let at = statement.rfind("use ").filter(|at| {
            let before = statement[..*at].trim_end();
            before.is_empty() || before.ends_with(['}', ')']) || before.ends_with("pub")
        });
        if let Some(at) = at {
            expand("", &statement[at + "use ".len()..], &mut paths);
        }
    }
    // Paths in the middle of code.
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let inline = code.split(|c| !word(c));
    let inline = inline.filter(|path| path.starts_with("super::") || path.starts_with("crate::"));
    // Those before braces are expanded above.
    let inline = inline.filter(|path| !path.ends_with(':'));
    paths.extend(inline.map(str::to_owned));
    // A parent that calls its children by their names.
    for child in all.keys().filter(|child| child.len() == module.len() + 1) {
        if child.starts_with(module) {
            let name = &child[module.len()];
            if code
                .split(|c| !word(c))
                .any(|path| path.starts_with(&format!("{name}::")))
            {
                paths.push(format!("self::{name}"));
            }
        }
    }
    paths
        .iter()
        .filter_map(|path| target(module, path, all))
        .collect()
}

#[test]
fn no_two_files_import_each_other() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wg-rs/src");
    let mut all = BTreeMap::new();
    modules(&root, &root, &mut all)?;
    let mut imported = BTreeMap::new();
    for (module, path) in &all {
        imported.insert(module, imports(module, &fs::read_to_string(path)?, &all));
    }
    let mut circles = Vec::new();
    for (one, theirs) in &imported {
        for other in theirs {
            let back = imported.get(other).is_some_and(|back| back.contains(*one));
            let in_room = |module: &Module| {
                ROOMS
                    .iter()
                    .any(|room| module.first().is_some_and(|first| first == room))
            };
            if back && *one < other && (in_room(one) || in_room(other)) {
                circles.push(format!("{} and {}", one.join("/"), other.join("/")));
            }
        }
    }
    assert!(
        imported.values().any(|theirs| theirs.len() > 3),
        "nothing is found"
    );
    assert!(
        circles.is_empty(),
        "files that import each other: {circles:?}"
    );
    Ok(())
}

#[test]
fn paths_are_read() {
    let mut paths = Vec::new();
    expand("", "super::a::{self, b::{C, D}, e::F}", &mut paths);
    assert_eq!(
        paths,
        [
            "super::a::self",
            "super::a::b::C",
            "super::a::b::D",
            "super::a::e::F"
        ]
    );
    let module = |text: &str| text.split('/').map(str::to_owned).collect::<Module>();
    let all: BTreeMap<_, _> = ["a", "a/b", "a/c"]
        .map(|text| (module(text), PathBuf::new()))
        .into();
    let to = |path: &str| target(&module("a/b"), path, &all);
    assert_eq!(to("super::c::Thing"), Some(module("a/c")));
    assert_eq!(to("crate::a::Thing"), Some(module("a")));
    assert_eq!(to("std::io"), None);
    let text = "use super::c::Thing;\nfn f() { crate::a::g() }\n#[cfg(test)]\nuse super::x;\n";
    assert_eq!(
        imports(&module("a/b"), text, &all),
        [module("a"), module("a/c")].into()
    );
    assert_eq!(
        imports(&module("a"), "mod b;\nfn f() { b::g() }", &all),
        [module("a/b")].into()
    );
}
