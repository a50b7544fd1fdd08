//! Programs that look around, and print what should not be there.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::{Outcome, errno, raw};

fn failed(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Runs a program, and prints `ran` or the error.
pub(crate) fn execute(path: &str) -> Outcome {
    let status = Command::new(path).arg("nothing").status();
    println!("{}", status.map_or_else(|error| errno::of(&error), |_| "ran".to_owned()));
    Ok(())
}

/// The path of the input root.
fn input_root() -> &'static Path {
    let execroot = Path::new("/execroot");
    if execroot.exists() { execroot } else { Path::new("/") }
}

/// Runs itself again from a file with every set-id bit, and prints who it is.
pub(crate) fn set_user_id() -> Outcome {
    let program = input_root().join("raised");
    fs::copy("/proc/self/exe", &program).map_err(failed)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).map_err(failed)?;
    let output = Command::new(program).arg("credentials").output().map_err(failed)?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// Descriptors above the three streams, but for the one that looks.
pub(crate) fn descriptors() -> Outcome {
    for entry in fs::read_dir("/proc/self/fd").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let is_own = target.to_string_lossy().ends_with("/fd");
        if !matches!(entry.file_name().to_str(), Some("0" | "1" | "2")) && !is_own {
            println!("{:?} {}", entry.file_name(), target.display());
        }
    }
    println!("0 is {}", fs::read_link("/proc/self/fd/0").map_err(failed)?.display());
    Ok(())
}

/// Every variable.
pub(crate) fn environment() -> Outcome {
    for (name, value) in std::env::vars_os() {
        println!("{}={}", name.display(), value.display());
    }
    Ok(())
}

/// Processes that are not this one.
pub(crate) fn processes() -> Outcome {
    let own = std::process::id().to_string();
    for entry in fs::read_dir("/proc").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.starts_with(|first: char| first.is_ascii_digit()) && name != own {
            println!("{name}");
        }
    }
    Ok(())
}

/// Users, groups, capabilities, and what limits them, as the kernel tells them.
pub(crate) fn credentials() -> Outcome {
    let status = fs::read_to_string("/proc/self/status").map_err(failed)?;
    let told = ["Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:"];
    for line in status.lines().filter(|line| told.iter().any(|name| line.starts_with(name))) {
        println!("{}", line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    Ok(())
}

/// The problems of the visible mounts: `what: mount`.
pub(crate) fn mounts() -> Outcome {
    const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
    const WRITABLE: [&str; 4] = ["/tmp", "/dev/shm", "/dev/pts", "/proc"];
    let is_root = input_root() == Path::new("/");
    // The devices are in the sandbox's root, or in a mount of a part of it.
    let devices = if is_root { "/dev" } else { "/" };
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, _, _, part, at, options, optional, ..] = fields.as_slice() else {
            return Err(format!("not a mount: {line}"));
        };
        // The file that covers entries of `/proc` belongs to the root.
        let is_cover = at.starts_with("/proc/");
        let has = |name| options.split(',').any(|option| option == name);
        // Where nobody may make devices, each of the sandbox's is a mount of the host's.
        let is_device =
            DEVICES.iter().any(|name| at.strip_prefix("/dev/") == Some(name)) && at.ends_with(part);
        let is_device_holder = [devices, "/dev/pts"].contains(at) || is_cover || is_device;
        let is_input_root = Path::new(at) == input_root();
        let is_own = ["/dev", "/proc", "/tmp"].iter().any(|own| Path::new(at).starts_with(own));
        let is_input = !is_input_root && !is_own && Path::new(at).starts_with(input_root());
        for (is_wrong, what) in [
            (!has("nosuid"), "takes set-user-id"),
            (!has("nodev") && !is_device_holder, "has devices"),
            (!has("ro") && !is_input_root && !WRITABLE.contains(at), "can be written"),
            (*optional != "-", "propagates"),
            (is_input && !has("ro"), "an input that can be written"),
        ] {
            if is_wrong {
                println!("{what}: {line}");
            }
        }
    }
    Ok(())
}

/// The paths of the kernel's tables of this process that have `part` in them.
pub(crate) fn paths_with(part: &str) -> Outcome {
    for table in ["mountinfo", "mounts", "mountstats", "maps", "cgroup"] {
        let text = fs::read_to_string(format!("/proc/self/{table}")).map_err(failed)?;
        for line in text.lines().filter(|line| line.contains(part)) {
            println!("{table}: {line}");
        }
    }
    for link in ["exe", "cwd", "root", "fd/0", "fd/1", "fd/2"] {
        let target = fs::read_link(format!("/proc/self/{link}")).map_err(failed)?;
        if target.to_string_lossy().contains(part) {
            println!("{link}: {}", target.display());
        }
    }
    Ok(())
}

/// Tries to reach an absolute path of the host by every way up that there is, and
/// prints the ways that lead there.
pub(crate) fn walk_up(target: &str) -> Outcome {
    let up = "../".repeat(40);
    let ways = [
        String::new(),
        up.clone(),
        format!("/{up}"),
        "/proc/self/root".to_owned(),
        format!("/proc/self/root/{up}"),
        "/proc/self/cwd/..".to_owned(),
        format!("/proc/self/cwd/{up}"),
        "/proc/1/root".to_owned(),
        "/proc/1/cwd".to_owned(),
        "/proc/thread-self/root".to_owned(),
        format!("/proc/self/task/{}/root", std::process::id()),
        format!("/proc/self/fd/0/{up}"),
        format!("/dev/fd/1/{up}"),
        format!("/dev/pts/{up}"),
        format!("/dev/shm/{up}"),
        format!("/tmp/{up}"),
        "/proc/self/map_files".to_owned(),
    ];
    for way in ways {
        if fs::metadata(format!("{way}{target}")).is_ok() {
            println!("{way}{target}");
        }
    }
    Ok(())
}

/// Addresses in the kernel that are told.
pub(crate) fn kernel_addresses() -> Outcome {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    for line in symbols.lines().take(1000) {
        let address = line.split(' ').next().unwrap_or_default();
        if address.chars().any(|digit| digit != '0') {
            println!("{line}");
            break;
        }
    }
    Ok(())
}

/// Checks the entries of `/proc` that the host hides.
pub(crate) fn host_in_proc() -> Outcome {
    for file in [
        "allocinfo",
        "bootconfig",
        "cmdline",
        "diskstats",
        "interrupts",
        "kcore",
        "keys",
        "kmsg",
        "kpagecgroup",
        "kpagecount",
        "kpageflags",
        "latency_stats",
        "pagetypeinfo",
        "sched_debug",
        "slabinfo",
        "timer_list",
        "timer_stats",
        "vmallocinfo",
    ] {
        let mut start = [0; 1];
        let path = format!("/proc/{file}");
        let opened = fs::File::open(path).and_then(|mut file| file.read(&mut start));
        if opened.is_ok_and(|read| read > 0) {
            println!("{file}");
        }
    }
    for directory in ["bus", "fs"] {
        for entry in fs::read_dir(format!("/proc/{directory}")).into_iter().flatten().flatten() {
            println!("{}", entry.path().display());
        }
    }
    // Programs need these.
    for file in ["cpuinfo", "loadavg", "meminfo", "stat", "uptime", "version", "vmstat"] {
        if fs::read_to_string(format!("/proc/{file}")).unwrap_or_default().is_empty() {
            println!("{file} is gone");
        }
    }
    // Zeros for a process without rights.
    for addresses in ["iomem", "ioports"] {
        let text = fs::read_to_string(format!("/proc/{addresses}")).unwrap_or_default();
        for line in text.lines() {
            let (range, _) = line.split_once(" : ").unwrap_or((line, ""));
            if range.chars().any(|digit| !matches!(digit, '0' | '-' | ' ')) {
                println!("{addresses}: {line}");
                break;
            }
        }
    }
    Ok(())
}

/// Looks for files that an action before this one left.
pub(crate) fn leftovers() -> Outcome {
    for directory in ["/tmp", "/var/tmp/", "/dev/shm", "/dev/mqueue"] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            println!("{}", entry.path().display());
        }
    }
    for entry in fs::read_dir("/execroot").map_err(failed)?.flatten() {
        if entry.file_name() == "left" {
            println!("{}", entry.path().display());
        }
    }
    for table in
        ["sysvipc/shm", "sysvipc/sem", "sysvipc/msg", "net/tcp", "net/tcp6", "net/udp", "net/unix"]
    {
        let text = fs::read_to_string(format!("/proc/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            println!("{table}: {line}");
        }
    }
    let name = b"left\0".to_vec().leak();
    if raw::call(libc::SYS_mq_open, [name.as_ptr() as i64, libc::O_RDWR.into(), 0, 0, 0, 0]).is_ok()
    {
        println!("a message queue");
    }
    Ok(())
}

/// Tries to lower the limit of core files, and prints it. With 1 the kernel starts
/// no handler of the host's for a crash; with less or more it does.
pub(crate) fn core_limit() -> Outcome {
    const CORE: i64 = libc::RLIMIT_CORE as i64;
    let none = vec![0_u8; 16].leak().as_ptr() as i64;
    let _done_or_not = raw::call(libc::SYS_prlimit64, [0, CORE, none, 0, 0, 0]);
    let _done_or_not = raw::call(libc::SYS_setrlimit, [CORE, none, 0, 0, 0, 0]);
    let limits = fs::read_to_string("/proc/self/limits").map_err(failed)?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    println!("{}", line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "));
    Ok(())
}
