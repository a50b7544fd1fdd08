//! The end of the machine.

use std::time::Duration;

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};
use rustix::system::RebootCommand;

use crate::settings::PowerOff;
use crate::{CAS, RUNTIMES};

/// How often processes are told to go, and a disk to let go, and the wait in between: what holds a
/// mount, such as the namespace of a killed action, goes a moment after its process.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Ends all processes, brings the disk up to date, and switches the machine off.
pub fn off(power_off: PowerOff) -> ! {
    kill_all();
    rustix::fs::sync();
    unmount(RUNTIMES);
    if !unmount(CAS) {
        // Synced, so that nothing is lost; the journal is replayed at the next boot.
        eprintln!("init: {CAS} is still in use");
        rustix::fs::sync();
    }
    let command = match power_off {
        PowerOff::Off => RebootCommand::PowerOff,
        PowerOff::Reset => RebootCommand::Restart,
    };
    let refused = rustix::system::reboot(command);
    // The end of PID 1 is a panic, and a panic is the end of the machine (`panic=-1`).
    panic!("the machine can't be switched off: {refused:?}");
}

/// Kills whatever is not PID 1 or of the kernel, until nothing is left.
fn kill_all() {
    for _ in 0..ATTEMPTS {
        let others = user_processes();
        if others.is_empty() {
            return;
        }
        for pid in others {
            // It may be gone already.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(PAUSE);
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
    }
    eprintln!("init: some processes can't be killed");
}

/// All but ourselves, and the kernel's threads, which have no program.
fn user_processes() -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let of_users = |pid: &i32| *pid != 1 && std::fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    pids.filter(of_users).filter_map(Pid::from_raw).collect()
}

/// Whether nothing is mounted there any more.
fn unmount(target: &str) -> bool {
    for _ in 0..ATTEMPTS {
        match rustix::mount::unmount(target, UnmountFlags::empty()) {
            // Not a mount point.
            Ok(()) | Err(rustix::io::Errno::INVAL) => return true,
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
    false
}
