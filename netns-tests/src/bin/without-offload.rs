//! Runs a program to which the kernel refuses an offload, as older kernels do. A seccomp filter makes the
//! calls fail by which the offload is requested.
//!
//! ```text
//! without-offload gso|gro|tso|uso|tun|header PROGRAM [ARGUMENT...]
//! ```
//! `tun`: all offloads of a TUN device. `header`: the length of the header of its packets.

use std::env;
use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter,
};

fn main() -> ExitCode {
    let Err(error) = run();
    eprintln!("without-offload: {error}");
    ExitCode::from(2)
}

fn run() -> Result<std::convert::Infallible, Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let offload = args.next().ok_or("no offload")?;
    apply_filter(&filter(&offload)?)?;
    let program = args.next().ok_or("no program")?;
    Err(Command::new(program).args(args).exec().into())
}

/// Lets the requests for this offload fail.
fn filter(offload: &str) -> Result<BpfProgram, Box<dyn Error>> {
    let is = |argument, value: u64| SeccompCondition::new(argument, Dword, SeccompCmpOp::Eq, value);
    let has = |argument, flag: u32| {
        let flag = u64::from(flag);
        SeccompCondition::new(argument, Dword, SeccompCmpOp::MaskedEq(flag), flag)
    };
    let udp_option = |option: i32| {
        let conditions = vec![is(1, libc::SOL_UDP as u64)?, is(2, option as u64)?];
        SeccompRule::new(conditions)
    };
    let offloads_with =
        |flag: u32| SeccompRule::new(vec![is(1, libc::TUNSETOFFLOAD)?, has(2, flag)?]);
    let socket_calls = &[libc::SYS_setsockopt, libc::SYS_getsockopt][..];
    let ioctl = &[libc::SYS_ioctl][..];
    let (calls, rule, errno) = match offload {
        "gso" => (
            socket_calls,
            udp_option(libc::UDP_SEGMENT)?,
            libc::ENOPROTOOPT,
        ),
        "gro" => (socket_calls, udp_option(libc::UDP_GRO)?, libc::ENOPROTOOPT),
        "tso" => (ioctl, offloads_with(libc::TUN_F_TSO4)?, libc::EINVAL),
        "uso" => (ioctl, offloads_with(libc::TUN_F_USO4)?, libc::EINVAL),
        "tun" => (ioctl, offloads_with(0)?, libc::EINVAL),
        "header" => {
            let rule = SeccompRule::new(vec![is(1, libc::TUNSETVNETHDRSZ)?])?;
            (ioctl, rule, libc::EINVAL)
        }
        other => return Err(format!("no offload {other}").into()),
    };
    let rules = calls.iter().map(|call| (*call, vec![rule.clone()]));
    let filter = SeccompFilter::new(
        rules.collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.cast_unsigned()),
        env::consts::ARCH.try_into()?,
    )?;
    Ok(filter.try_into()?)
}
