//! Returns memory to the host.
//!
//! The guest drops only caches: pages of files that are on the disk, and the kernel's own. Free memory
//! then returns to the host through the balloon's free page reporting, or when the host inflates the
//! balloon.

use std::fs;

use vm::control::ReleasedMemory;

/// Asks the kernel to reclaim a number of bytes, from the least used on (cgroup-v2.rst).
const RECLAIM: &str = "/sys/fs/cgroup/memory.reclaim";

/// Drops all clean caches, wherever they are needed.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// Frees up to `wanted_bytes`.
pub(super) fn release(wanted_bytes: u64) -> Result<ReleasedMemory, String> {
    if wanted_bytes > 0 {
        reclaim(wanted_bytes)?;
    }
    let meminfo = fs::read_to_string("/proc/meminfo").map_err(|error| error.to_string())?;
    let field = |name| field_bytes(&meminfo, name).ok_or_else(|| format!("no {name} in meminfo"));
    Ok(ReleasedMemory { free_bytes: field("MemFree")?, total_bytes: field("MemTotal")? })
}

fn reclaim(bytes: u64) -> Result<(), String> {
    match fs::write(RECLAIM, bytes.to_string()) {
        Ok(()) => Ok(()),
        // Less memory was available.
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        Err(_) => fs::write(DROP_CACHES, "1").map_err(|error| format!("{DROP_CACHES}: {error}")),
    }
}

/// The bytes of a line like `MemFree:  1024 kB`.
fn field_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let lines = meminfo.lines().filter_map(|line| line.split_once(':'));
    let value = lines.filter(|(found, _)| *found == name).map(|(_, value)| value).next()?;
    let kibibytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read() {
        let meminfo = "MemTotal:       24689764 kB\nMemFree:          100 kB\nHugePages: 0\n";
        assert_eq!(field_bytes(meminfo, "MemFree"), Some(102_400));
        assert_eq!(field_bytes(meminfo, "HugePages"), None);
        assert_eq!(field_bytes(meminfo, "Mem"), None);
    }

    #[test]
    fn asking_for_nothing_only_looks() {
        let memory = release(0).unwrap();
        assert!(memory.free_bytes > 0 && memory.free_bytes < memory.total_bytes);
    }
}
