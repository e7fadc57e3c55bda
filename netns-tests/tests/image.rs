//! The container image in packaging/, built on a clean Debian. A server runs in it by the commands of the README,
//! and its client by the options of compose.yaml. That file and kubernetes.yaml say the same.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use netns_tests::containers::{ContainerEngine, Kind};
use netns_tests::quick::{BIN, Site};
use netns_tests::{Host, Lab, PATIENCE, binaries, debian, netlink, require, until};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The time limit for building the image, which is copied several times.
const LONG: Duration = Duration::from_secs(600);
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// The addresses of the server and the client on the cable, and of the server in the tunnel.
const SERVER: [u8; 4] = [198, 51, 100, 1];
const CLIENT: [u8; 4] = [198, 51, 100, 2];
const INSIDE: [u8; 4] = [10, 9, 0, 1];

fn read(file: &str) -> String {
    let path = Path::new(ROOT).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A YAML file of packaging/.
fn yaml(file: &str) -> Value {
    let text = read(&format!("packaging/{file}"));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    let found = value.pointer(path);
    found.unwrap_or_else(|| panic!("no {path} in {value}"))
}

fn strings(value: &Value) -> Vec<&str> {
    let items = value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"));
    let string = |item: &'_ Value| item.as_str().map(str::len);
    assert!(items.iter().all(|item| string(item).is_some()), "{value}");
    items.iter().filter_map(Value::as_str).collect()
}

/// The README's commands for the image, one text for each code block.
fn commands() -> Vec<String> {
    let text = read("README.md");
    let blocks = text.split("\n```").skip(1).step_by(2);
    let ours = blocks.filter_map(|block| block.strip_prefix("sh image\n"));
    ours.map(str::to_owned).collect()
}

/// Copies what the image is made of, as the README's commands expect it in the current folder.
fn context(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder.join("target/release"))?;
    fs::create_dir_all(folder.join("packaging"))?;
    for program in ["wireguard-rs", "wg-rs", "wg-quick-rs"] {
        let built = binaries::build(program)?;
        let copy = folder.join("target/release").join(program);
        debian::run(Command::new("strip").arg("-o").arg(copy).arg(built))?;
    }
    for file in [
        "packaging/Dockerfile",
        "packaging/wg-entrypoint",
        ".dockerignore",
    ] {
        fs::copy(Path::new(ROOT).join(file), folder.join(file))?;
    }
    Ok(())
}

/// A host with a Docker engine that has the image's base.
struct Docker {
    engine: ContainerEngine,
    site: Site,
    folder: TempDir,
    lab: Lab,
}

impl Docker {
    fn new() -> io::Result<Option<Docker>> {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let Some(root) = debian::root(kept, debian::PLAIN)? else {
            return Ok(None);
        };
        if require("strip", binaries::on_path("strip")).is_none() {
            return Ok(None);
        }
        let folder = tempfile::tempdir()?;
        context(folder.path())?;
        let lab = Lab::new()?;
        let Some(site) = Site::new(&lab, "docker")? else {
            return Ok(None);
        };
        let Some(engine) = ContainerEngine::start(Kind::Docker, &site.host)? else {
            return Ok(None);
        };
        // As slim as the image of this name on Docker Hub.
        let archive = folder.path().join("base.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&root).arg("-cf").arg(&archive);
        for left_out in [
            "./usr/share/doc",
            "./usr/share/man",
            "./usr/share/locale",
            "./var/cache/apt",
            "./var/lib/apt/lists",
            "./dev",
        ] {
            tar.arg(format!("--exclude={left_out}/*"));
        }
        debian::run(tar.arg("."))?;
        engine.command(&["import", &archive.to_string_lossy(), "debian:stable-slim"])?;
        fs::remove_file(archive)?;
        // This engine has no network but `none`. Its containers are watched more often, and may take longer to stop
        // on a busy machine.
        let real = binaries::on_path("docker").unwrap_or_default();
        let real = real.display();
        site.stand_in(
            "docker",
            &format!(
                "#!/bin/sh -e
                verb=$1; shift
                case $verb in
                run) set -- --network none --health-interval 1s \"$@\" ;;
                stop) set -- --time 60 \"$@\" ;;
                esac
                exec {real} --host {} $verb \"$@\"",
                engine.socket()
            ),
        )?;
        Ok(Some(Docker {
            engine,
            site,
            folder,
            lab,
        }))
    }

    /// Runs commands of the README.
    fn sh(&self, script: &str) -> io::Result<String> {
        let mut command = Command::new("bash");
        command
            .args(["-euc", script])
            .current_dir(self.folder.path());
        command.env("PATH", format!("{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"));
        self.site.host.spawn(&mut command)?.success(LONG)
    }

    fn command(&self, args: &[&str]) -> io::Result<String> {
        self.engine.command(args)
    }

    /// The network of a running container.
    fn inside(&self, container: &str) -> io::Result<Host> {
        self.engine.inside(container).map_err(|error| {
            let logs = self.command(&["logs", container]);
            io::Error::other(format!("{container} does not run: {error}: {logs:?}"))
        })
    }

    /// Waits until the container is `healthy` or `unhealthy`, and returns the output of the last check.
    fn until_health(&self, container: &str, state: &str) -> io::Result<String> {
        let limit = PATIENCE * 4;
        until(limit, &format!("{container} to be {state}"), || {
            let format = "{{json .State}}";
            let told = self.command(&["inspect", "--format", format, container])?;
            let told: Value = serde_json::from_str(&told)?;
            let health = &told["Health"];
            if told["Status"] != "running" {
                return Err(io::Error::other(format!("{container} has ended: {told}")));
            }
            let last = health["Log"]
                .as_array()
                .and_then(|log| Some(log.last()?["Output"].to_string()));
            Ok((health["Status"] == state).then(|| last.unwrap_or_default()))
        })
        .map_err(|error| {
            let logs = self.command(&["logs", container]);
            io::Error::other(format!("{error}: {logs:?}"))
        })
    }

    /// Checks that a stopped container ended by itself, and left nothing in its network.
    fn is_down(&self, container: &str, network: &Host) -> io::Result<()> {
        let code = self.command(&["inspect", "--format", "{{.State.ExitCode}}", container])?;
        let logs = self.command(&["logs", container])?;
        assert_eq!(code.trim(), "0", "{logs}");
        assert!(network.run(|| netlink::link("wg0"))?.is_none(), "{logs}");
        assert_eq!(network.sh("nft", &["list", "tables"])?, "", "{logs}");
        let rules = network.sh("ip", &["rule", "show"])?;
        assert!(!rules.contains("fwmark"), "{rules}{logs}");
        Ok(())
    }
}

/// The options for `docker run` that do the same as a service in compose.yaml, with its files from `files`.
fn run_options(service: &Value, files: &Path) -> Vec<String> {
    let mut options = Vec::new();
    for (key, value) in service.as_object().expect("a service") {
        let mut put = |option: &str, value: &str| options.push(format!("--{option}={value}"));
        match key.as_str() {
            "cap_drop" | "cap_add" | "devices" | "tmpfs" | "dns" => {
                let option = match key.as_str() {
                    "devices" => "device".to_owned(),
                    key => key.replace('_', "-"),
                };
                strings(value).iter().for_each(|value| put(&option, value));
            }
            "read_only" => put("read-only", &value.to_string()),
            "restart" => put("restart", value.as_str().expect("a policy")),
            "sysctls" => {
                for (name, value) in value.as_object().expect("sysctls") {
                    put(
                        "sysctl",
                        &format!("{name}={}", value.as_str().expect("a string")),
                    );
                }
            }
            "volumes" => {
                for volume in strings(value) {
                    let (host, rest) = volume.split_once(':').expect("a path in the container");
                    assert_eq!(host, "/etc/wireguard");
                    put("volume", &format!("{}:{rest}", files.display()));
                }
            }
            "image" | "build" => {}
            _ => panic!("this test does not know {key}"),
        }
    }
    options
}

#[test]
fn a_server_and_its_client_are_containers() -> io::Result<()> {
    let Some(docker) = Docker::new()? else {
        return Ok(());
    };
    let blocks = commands();
    let [start, use_it, stop] = blocks.as_slice() else {
        panic!("the README has {} blocks for the image", blocks.len());
    };
    docker.sh(start)?;
    let server = docker.inside("vpn")?;
    docker.until_health("vpn", "healthy")?;
    // It runs with no more than NET_ADMIN, and with nothing to write to.
    let exec =
        |container: &str, script: &str| docker.command(&["exec", container, "sh", "-euc", script]);
    let bounds = exec("vpn", "grep CapBnd /proc/self/status")?;
    assert_eq!(bounds.trim(), format!("CapBnd:\t{:016x}", 1 << 12));
    for file in ["/proc/sys/net/ipv4/ip_forward", "/usr/x", "/x"] {
        let error = exec("vpn", &format!("echo 1 > {file}")).expect_err("must be read-only");
        assert!(error.to_string().contains("Read-only"), "{error}");
    }
    let said = docker.sh(use_it)?;
    assert!(said.contains("phone "), "{said}");

    // A client of this server, by compose.yaml. All that it sends goes through the tunnel.
    let endpoint = std::net::Ipv4Addr::from(SERVER).to_string();
    let add = "wg-quick-rs add wg0 laptop --full-tunnel --endpoint";
    let file = exec("vpn", &format!("{add} {endpoint} 2> /dev/null"))?;
    let files = docker.folder.path().join("files");
    fs::create_dir(&files)?;
    let write = |text: &str| -> io::Result<()> {
        fs::write(files.join("wg0.conf"), text)?;
        fs::set_permissions(files.join("wg0.conf"), fs::Permissions::from_mode(0o600))
    };
    write(&file)?;
    let compose = yaml("compose.yaml");
    let options = run_options(at(&compose, "/services/vpn"), &files);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let named = [
        "run",
        "--detach",
        "--name=client",
        "--network=none",
        "--health-interval=1s",
    ];
    docker.command(&[&named[..], &options, &["wg-rs"]].concat())?;
    let client = docker.inside("client")?;
    exec("vpn", "wg-rs log wg0 verbose")?;
    docker
        .lab
        .cable((&server, "eth9"), (&client, "eth9"), 1500)?;
    server.address("eth9", SERVER, 24)?;
    client.address("eth9", CLIENT, 24)?;
    docker.until_health("client", "healthy")?;
    client.reach(INSIDE, PATIENCE)?;
    let health = docker.until_health("client", "healthy")?;
    assert!(health.contains("wg0: wireguard-rs"), "{health}");
    until(PATIENCE, "a handshake in the log of the container", || {
        let logs = docker.command(&["logs", "vpn"])?;
        Ok(logs.to_lowercase().contains("handshake").then_some(()))
    })?;

    docker.sh(stop)?;
    docker.is_down("vpn", &server)?;

    // A daemon that was killed is noticed, and a new start begins anew.
    exec(
        "client",
        "for process in /proc/[0-9]*; do if [ \"$(cat $process/comm)\" = wireguard-rs ]; then \
         kill -9 ${process#/proc/}; fi; done",
    )?;
    let health = docker.until_health("client", "unhealthy")?;
    assert!(health.contains("wg0"), "{health}");
    docker.command(&["restart", "--time=60", "client"])?;
    docker.until_health("client", "healthy")?;

    // It is stopped while an interface is being brought up.
    write(&file.replace("[Peer]", "PreUp = echo this lasts; sleep 1000\n[Peer]"))?;
    docker.command(&["restart", "--time=60", "client"])?;
    let client = docker.inside("client")?;
    until(PATIENCE * 3, "the hook", || {
        let logs = docker.command(&["logs", "client"])?;
        Ok(logs.contains("\nthis lasts").then_some(()))
    })?;
    docker.command(&["stop", "--time=60", "client"])?;
    docker.is_down("client", &client)
}

/// What a description of a container says.
#[derive(Debug, PartialEq)]
struct Facts {
    image: Value,
    capabilities: [Value; 2],
    read_only: Value,
    /// Where something is mounted: from a file of the host, with files to read, in memory.
    mounts: [Vec<String>; 3],
    sysctls: Value,
    name_servers: Value,
}

#[test]
fn the_examples_describe_the_same_container() {
    let compose = yaml("compose.yaml");
    let vpn = at(&compose, "/services/vpn");
    let owned = |value: &Value| {
        strings(value)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let volumes = strings(at(vpn, "/volumes"));
    let volumes = volumes
        .iter()
        .map(|volume| volume.strip_suffix(":ro").expect("read-only"));
    let by_compose = Facts {
        image: at(vpn, "/image").clone(),
        capabilities: [at(vpn, "/cap_drop").clone(), at(vpn, "/cap_add").clone()],
        read_only: at(vpn, "/read_only").clone(),
        mounts: [
            owned(at(vpn, "/devices")),
            volumes
                .filter_map(|volume| Some(volume.split_once(':')?.1.to_owned()))
                .collect(),
            owned(at(vpn, "/tmpfs")),
        ],
        sysctls: at(vpn, "/sysctls").clone(),
        name_servers: at(vpn, "/dns").clone(),
    };
    assert_eq!(at(&compose, "/services/web/network_mode"), "service:vpn");
    assert_eq!(
        at(&compose, "/services/web/depends_on/vpn/condition"),
        "service_healthy"
    );
    let folder = Path::new(ROOT)
        .join("packaging")
        .join(at(vpn, "/build/context").as_str().unwrap());
    assert!(
        folder
            .join(at(vpn, "/build/dockerfile").as_str().unwrap())
            .exists()
    );

    let pod = yaml("kubernetes.yaml");
    let sidecar = at(&pod, "/spec/initContainers/0");
    let rights = at(sidecar, "/securityContext");
    let mounted = |is_it: fn(&Value) -> bool| -> Vec<String> {
        let volumes = at(&pod, "/spec/volumes").as_array().expect("volumes");
        let mounts = at(sidecar, "/volumeMounts").as_array().expect("mounts");
        let volume = |mount: &Value| {
            volumes
                .iter()
                .find(|volume| volume["name"] == mount["name"])
        };
        let mounts = mounts
            .iter()
            .filter(|mount| is_it(volume(mount).expect("its volume")));
        mounts
            .map(|mount| mount["mountPath"].as_str().expect("a path").to_owned())
            .collect()
    };
    let sysctls = at(&pod, "/spec/securityContext/sysctls")
        .as_array()
        .expect("sysctls");
    let sysctls = sysctls.iter().map(|one| {
        (
            one["name"].as_str().expect("a name").to_owned(),
            one["value"].clone(),
        )
    });
    let by_kubernetes = Facts {
        image: at(sidecar, "/image").clone(),
        capabilities: [
            at(rights, "/capabilities/drop").clone(),
            at(rights, "/capabilities/add").clone(),
        ],
        read_only: at(rights, "/readOnlyRootFilesystem").clone(),
        mounts: [
            mounted(|volume| {
                volume["hostPath"]["type"] == "CharDevice"
                    && volume["hostPath"]["path"] == "/dev/net/tun"
            }),
            mounted(|volume| volume["secret"]["defaultMode"] == 0o600),
            mounted(|volume| volume["emptyDir"]["medium"] == "Memory"),
        ],
        sysctls: Value::Object(sysctls.collect()),
        name_servers: at(&pod, "/spec/dnsConfig/nameservers").clone(),
    };
    assert_eq!(by_compose, by_kubernetes);
    assert_eq!(at(sidecar, "/restartPolicy"), "Always");
    assert_eq!(at(sidecar, "/volumeMounts/0/readOnly"), true);

    // Both are checked as the image says.
    let dockerfile = read("packaging/Dockerfile");
    let health = dockerfile.split_once("HEALTHCHECK ").expect("a check").1;
    let health = health
        .lines()
        .next()
        .unwrap_or_default()
        .split_once(" CMD ")
        .expect("a command")
        .1;
    let health: Value = serde_json::from_str(health).expect("a list");
    assert_eq!(health, json!(["wg-entrypoint", "health"]));
    for probe in ["startupProbe", "livenessProbe"] {
        assert_eq!(at(sidecar, &format!("/{probe}/exec/command")), &health);
    }
    assert!(read("README.md").contains(&format!(
        "docker build -t {} ",
        by_compose.image.as_str().unwrap()
    )));
}
