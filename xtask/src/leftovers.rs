//! The possible remains of a daemon on a host: processes, mounts, loop devices.

use std::{fs, path::Path};

use anyhow::Result;

/// The host's mount table, as this process sees it.
pub(crate) fn mounts() -> Result<String> {
    Ok(fs::read_to_string("/proc/self/mounts")?)
}

/// Every process of a session, by id and name. Processes that an action daemonizes may leave the
/// session, but not the PID namespace of their action, whose first process is in the session.
pub(crate) fn processes_of_session(session: u32) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        // Processes that end while we look are no leftovers.
        let Ok(stat) = fs::read_to_string(entry?.path().join("stat")) else { continue };
        if session_of(&stat) == Some(session) {
            found.push(stat.split_inclusive(')').next().unwrap_or_default().to_owned());
        }
    }
    Ok(found)
}

/// Loop devices over files below `folder`.
pub(crate) fn loop_devices_below(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for device in fs::read_dir("/sys/block")? {
        let backing = device?.path().join("loop/backing_file");
        if let Ok(file) = fs::read_to_string(&backing)
            && Path::new(file.trim_end()).starts_with(folder)
        {
            found.push(file.trim_end().to_owned());
        }
    }
    Ok(found)
}

/// The session in a line of `/proc/PID/stat` (proc(5)): the fourth field after the name, which is in
/// parentheses and may hold anything.
fn session_of(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    // A dead process that nobody has waited for yet is gone but for its exit code.
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_read_past_any_name() {
        assert_eq!(session_of("12 (sh) S 1 12 7 0 -1"), Some(7));
        assert_eq!(session_of("12 (a ) R 1 1) S 1 12 7 0 -1"), Some(7));
        assert_eq!(session_of("12 (gone) Z 1 12 7 0 -1"), None);
        assert_eq!(session_of("12"), None);
    }

    #[test]
    fn our_own_session_has_processes() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(!processes_of_session(session_of(&stat).unwrap()).unwrap().is_empty());
    }
}
