//! Finds programs: on PATH, or built on demand with the profile of the running program.

use std::collections::HashMap;
use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// A variable that is set where nothing can be built: then all programs are on PATH.
pub(crate) const PREBUILT: &str = "NETNS_TESTS_PREBUILT";

/// The program of this name on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Builds a program of this workspace once per process, with the profile and in the target folder of
/// the running program, and returns its path. With `NETNS_TESTS_PREBUILT` in the environment, as in
/// the virtual machine, it looks for the program on PATH.
pub fn build(program: &str) -> io::Result<PathBuf> {
    build_with(None, program)
}

/// Like [`build`], with a feature that is not usual. The program is put into a folder that has the name of
/// the feature, so that it does not replace the usual program.
pub fn build_with(feature: Option<&str>, program: &str) -> io::Result<PathBuf> {
    if env::var_os(PREBUILT).is_some() {
        let absent = || io::Error::new(io::ErrorKind::NotFound, program.to_owned());
        return on_path(program).ok_or_else(absent);
    }
    type Built = HashMap<(Option<String>, String), PathBuf>;
    static BUILT: Mutex<Option<Built>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    let name = (feature.map(str::to_owned), program.to_owned());
    if let Some(path) = built.get(&name) {
        return Ok(path.clone());
    }
    let folder = BuildFolder::of(&env::current_exe()?)?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    // With all packages of the workspace the libraries have the features of the package that is shipped, and
    // of the program that runs. Otherwise Cargo builds most of them again.
    command.args(["build", "--quiet", "--workspace", "--bin", program]);
    if folder.profile == "dev" {
        // In this profile the tests were built, with the features that all of them need. Cargo uses these
        // features only if a test is selected too.
        command.args(["--test", "configure"]);
    }
    command.arg("--manifest-path");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    let target = match feature {
        None => folder.target.clone(),
        Some(feature) => {
            command.args(["--features", feature]);
            // What other builds have built is used again.
            command.env("CARGO_BUILD_BUILD_DIR", &folder.target);
            folder.target.join(feature)
        }
    };
    command.arg("--target-dir").arg(&target);
    command.args(["--profile", &folder.profile]);
    if let Some(triple) = &folder.triple {
        command.args(["--target", triple]);
    }
    // Cargo sets these variables for programs that it runs. Passed on, they would make Cargo rebuild
    // other packages.
    for (variable, _) in env::vars_os() {
        let name = variable.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|own| name.starts_with(own))
        {
            command.env_remove(&variable);
        }
    }
    let status = command.status().map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("run {}: {error}", Path::new(&cargo).display()),
        )
    })?;
    if !status.success() {
        return Err(io::Error::other(format!(
            "{program} could not be built: {command:?}"
        )));
    }
    let programs = folder.programs.strip_prefix(&folder.target);
    let path = target
        .join(programs.map_err(io::Error::other)?)
        .join(program);
    built.insert(name, path.clone());
    Ok(path)
}

/// The path of our `wg-rs`; the daemon that it starts is in the same folder.
pub fn wg_rs() -> io::Result<String> {
    build("wireguard-rs")?;
    Ok(build("wg-rs")?.to_string_lossy().into_owned())
}

/// The folder into which Cargo builds: TARGET/[TRIPLE/]PROFILE/[deps|examples/]program.
#[derive(Debug, PartialEq)]
struct BuildFolder {
    target: PathBuf,
    triple: Option<String>,
    profile: String,
    programs: PathBuf,
}

impl BuildFolder {
    fn of(exe: &Path) -> io::Result<BuildFolder> {
        let unknown = || io::Error::other(format!("{} is not in a target folder", exe.display()));
        let mut programs = exe.parent().ok_or_else(unknown)?;
        if programs.ends_with("deps") || programs.ends_with("examples") {
            programs = programs.parent().ok_or_else(unknown)?;
        }
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let profile = match name(programs).ok_or_else(unknown)?.as_str() {
            "debug" => "dev".into(),
            other => other.to_owned(),
        };
        let mut target = programs.parent().ok_or_else(unknown)?;
        let mut triple = None;
        // A triple has at least two dashes. A target folder may have such a name too, but it has a tag.
        if !target.join("CACHEDIR.TAG").exists()
            && let Some(folder) = name(target)
            && folder.matches('-').count() >= 2
        {
            triple = Some(folder);
            target = target.parent().ok_or_else(unknown)?;
        }
        Ok(BuildFolder {
            target: target.into(),
            triple,
            profile,
            programs: programs.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_folder_is_found_from_a_programs_path() {
        let of = |exe: &str| {
            let folder = BuildFolder::of(Path::new(exe)).unwrap();
            (
                folder.target,
                folder.triple,
                folder.profile,
                folder.programs,
            )
        };
        assert_eq!(
            of("/x/target/debug/deps/interop-0123"),
            (
                "/x/target".into(),
                None,
                "dev".into(),
                "/x/target/debug".into()
            )
        );
        assert_eq!(
            of("/x/target/aarch64-unknown-linux-gnu/release/bench"),
            (
                "/x/target".into(),
                Some("aarch64-unknown-linux-gnu".into()),
                "release".into(),
                "/x/target/aarch64-unknown-linux-gnu/release".into()
            )
        );
    }
}
