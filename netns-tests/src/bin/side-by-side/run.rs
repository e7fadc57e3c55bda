//! Runs a case by one of the two programs.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use netns_tests::SOCKETS;

use crate::case::{Case, Fake, InitialState};
use crate::time;

pub const A: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
pub const B: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
pub const C: &str = "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=";
const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PSK: &str = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";

/// The files of `$F`.
fn files() -> Vec<(&'static str, String)> {
    let interface =
        format!("[Interface]\nPrivateKey = {KEY}\nListenPort = 7001\nFwMark = 0xca6c\n");
    let full_peer = format!(
        "[Peer]\nPublicKey = {A}\nPresharedKey = {PSK}\nEndpoint = 192.0.2.1:7002\n\
         AllowedIPs = 10.9.0.0/24, fd09::/64, 10.10.0.5/32\nPersistentKeepalive = 25\n"
    );
    let other_peer = format!("[Peer]\nPublicKey = {B}\nEndpoint = [2001:db8::1]:7003\n");
    vec![
        ("full.conf", format!("{interface}{full_peer}{other_peer}")),
        ("one.conf", format!("{interface}{full_peer}")),
        ("empty.conf", "[Interface]\n".into()),
        ("key", format!("{KEY}\n")),
        (
            "key2",
            "+GJ6+FuxUTZ3fmqAwSlMMzFGIwRe3pBcPmfTaHHuiU8=\n".into(),
        ),
        (
            "unclamped",
            "////////////////////////////////////////////=\n".replace("/=", "8="),
        ),
        ("psk", format!("{PSK}\n")),
        (
            "psk2",
            "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=".into(),
        ),
        ("nothing", String::new()),
        ("short", "yAnz5TF+lXXJte14\n".into()),
        (
            "spare-bits",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=\n".into(),
        ),
        ("trailing", format!("{KEY} x\n")),
        ("white", format!("{KEY} \t\r\n\n")),
        ("leading", format!(" {KEY}\n")),
    ]
}

/// One of the two programs, which can be run as `wg`.
pub struct Program {
    /// The folder in which it has that name.
    folder: PathBuf,
}

/// Runs lines on one interface. Its files are removed when it is dropped.
pub struct Runner {
    root: PathBuf,
    interface: String,
    /// The initial state of the interface, if nothing has changed it since.
    state: Cell<Option<InitialState>>,
    /// The dump of each initial state.
    dumps: RefCell<HashMap<InitialState, String>>,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// The dump of the interface afterwards.
    pub dump: String,
}

impl Runner {
    pub fn new(interface: &str) -> io::Result<Runner> {
        let root = std::env::temp_dir().join(format!("side-by-side-{}", std::process::id()));
        fs::create_dir(&root)?;
        let runner = Runner {
            root,
            interface: interface.into(),
            state: Cell::new(None),
            dumps: RefCell::default(),
        };
        fs::create_dir(runner.root.join("files"))?;
        for (name, text) in files() {
            fs::write(runner.root.join("files").join(name), text)?;
        }
        Ok(runner)
    }

    pub fn program(&self, name: &str, path: &Path) -> io::Result<Program> {
        let folder = self.root.join(name);
        fs::create_dir(&folder)?;
        symlink(fs::canonicalize(path)?, folder.join("wg"))?;
        Ok(Program { folder })
    }

    /// Runs a line by `program` in an empty folder. The result does not have the interface's state yet.
    pub fn shell(&self, program: &Program, line: &str) -> io::Result<Done> {
        let folder = self.root.join("here");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder)?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(program.folder.clone()).chain(std::env::split_paths(&path));
        let mut command = Command::new("sh");
        command.arg("-c").arg(line).current_dir(folder).env_clear();
        command.env(
            "PATH",
            std::env::join_paths(paths).map_err(io::Error::other)?,
        );
        let variables = [
            ("I", &*self.interface),
            ("A", A),
            ("B", B),
            ("C", C),
            ("KEY", KEY),
        ];
        command.envs(variables).env("F", self.root.join("files"));
        // No name server answers here, so there is no need to wait.
        command.env("WG_ENDPOINT_RESOLUTION_RETRIES", "0");
        command
            .env("LC_ALL", "C")
            .env("RES_OPTIONS", "timeout:1 attempts:1");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = command.output()?;
        Ok(Done {
            code: output.status.code().unwrap_or(-1),
            stdout: time::absolute(&String::from_utf8_lossy(&output.stdout)),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            dump: String::new(),
        })
    }

    /// Brings the interface to an initial state, by `reference`, unless it is already in it.
    fn reset(&self, reference: &Program, state: InitialState) -> io::Result<()> {
        if self.state.get() == Some(state) {
            return Ok(());
        }
        let file = match state {
            InitialState::Full => "full",
            InitialState::One => "one",
            InitialState::Empty => "empty",
        };
        let done = self.shell(reference, &format!("wg setconf $I $F/{file}.conf"))?;
        if (done.code, done.stderr.as_str()) != (0, "") {
            return Err(io::Error::other(format!("reset to {file}: {done:?}")));
        }
        let dump = self.shell(reference, "wg show $I dump")?.stdout;
        self.dumps.borrow_mut().insert(state, dump);
        self.state.set(Some(state));
        Ok(())
    }

    /// The dump of the interface by `reference`, after a line was run. A port that the system chose
    /// differs each time, so it is replaced by "random", in the dump and in `stdout`.
    fn dump(&self, reference: &Program, stdout: &mut String) -> io::Result<String> {
        let done = self.shell(reference, "wg show $I dump")?;
        if done.code != 0 {
            return Err(io::Error::other(format!("dump: {done:?}")));
        }
        let mut dump = done.stdout;
        if let Some(state) = self.state.get()
            && self.dumps.borrow().get(&state) != Some(&dump)
        {
            self.state.set(None);
        }
        if let Some(port) = dump.split('\t').nth(2).map(str::to_owned)
            && port.parse::<u16>().is_ok_and(|port| port >= 32768)
        {
            dump = dump.replacen(&port, "random", 1);
            *stdout = stdout.replace(&port, "random");
        }
        Ok(dump)
    }

    /// Runs a case by `program`; `reference` sets the initial state, and dumps the final one.
    pub fn run(&self, case: &Case, program: &Program, reference: &Program) -> io::Result<Done> {
        self.reset(reference, case.state)?;
        let mut done = {
            let _fake = case.fake.map(FakeDaemon::start).transpose()?;
            self.shell(program, case.line)?
        };
        done.dump = self.dump(reference, &mut done.stdout)?;
        Ok(done)
    }

    /// The dump of the interface after this line by `reference`.
    pub fn state_after(&self, case: &Case, line: &str, reference: &Program) -> io::Result<String> {
        self.reset(reference, case.state)?;
        let done = self.shell(reference, line)?;
        if done.code != 0 {
            return Err(io::Error::other(format!("{line}: {done:?}")));
        }
        self.dump(reference, &mut String::new())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The fake daemon of the interface `fake`. Its socket is removed when this is dropped.
struct FakeDaemon(PathBuf);

impl FakeDaemon {
    fn start(fake: Fake) -> io::Result<FakeDaemon> {
        let path = Path::new(SOCKETS).join("fake.sock");
        fs::create_dir_all(SOCKETS)?;
        let listener = UnixListener::bind(&path)?;
        if let Fake::Says(answer) = fake {
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let Ok(mut stream) = stream else { return };
                    // A request ends with an empty line; a probe sends nothing.
                    let mut asked = Vec::new();
                    let mut byte = [0];
                    while !asked.ends_with(b"\n\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                        asked.push(byte[0]);
                    }
                    if asked == b"stop\n\n" {
                        return;
                    }
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
        }
        Ok(FakeDaemon(path))
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(&self.0) {
            let _ = stream.write_all(b"stop\n\n");
        }
        let _ = fs::remove_file(&self.0);
    }
}
