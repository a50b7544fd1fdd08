//! The user namespace of this process, as `/proc` describes it (user_namespaces(7)).

use rustix::fs::CWD;

use crate::proc_file;

/// Whether this is the user namespace that the kernel starts with, in which root has all rights.
pub fn is_initial() -> bool {
    // Every kernel can show the map. Where `/proc` is missing, nothing else works either.
    let map = proc_file::read(CWD, "/proc/self/uid_map").unwrap_or_default();
    extents(&map).next().is_none_or(|extent| extent == Extent { inside: 0, count: u32::MAX })
}

/// Whether a user and a group with this id exist here. Without them, chown(2) and setuid(2) fail with
/// EINVAL.
pub fn maps(id: u32) -> bool {
    ["/proc/self/uid_map", "/proc/self/gid_map"].into_iter().all(|file| {
        proc_file::read(CWD, file).is_ok_and(|map| extents(&map).any(|extent| extent.has(id)))
    })
}

/// Whether a file whose owner is shown as `id` may belong to a user who does not exist here: the kernel shows all
/// of them, root of the initial namespace included, as one id (user_namespaces(7)).
pub fn is_unknown_owner(id: u32) -> bool {
    id == overflow_id() && !is_initial()
}

/// The id of users who don't exist in a namespace.
fn overflow_id() -> u32 {
    /// DEFAULT_OVERFLOWUID of the kernel.
    const DEFAULT: u32 = 65_534;
    let id = proc_file::read(CWD, "/proc/sys/kernel/overflowuid");
    id.ok().and_then(|id| id.trim().parse().ok()).unwrap_or(DEFAULT)
}

/// A run of ids that exist in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    inside: u32,
    count: u32,
}

impl Extent {
    fn has(self, id: u32) -> bool {
        id.checked_sub(self.inside).is_some_and(|offset| offset < self.count)
    }
}

/// The lines of a map: the first id inside, the first id outside, their number.
fn extents(map: &str) -> impl Iterator<Item = Extent> {
    map.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let inside = words.next()?.parse().ok()?;
        let count = words.nth(1)?.parse().ok()?;
        Some(Extent { inside, count })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_the_ids_of_its_extents() {
        let check = |map: &str, id: u32, expected: bool| {
            assert_eq!(extents(map).any(|extent| extent.has(id)), expected, "{id} in {map:?}");
        };
        let one = "         0       1000          1\n";
        check(one, 0, true);
        check(one, 1, false);
        check(one, 65534, false);
        let two = "         0       1000          1\n     65534     100000          1\n";
        check(two, 65534, true);
        check(two, 65535, false);
        check("         0          0 4294967295\n", 65534, true);
        check("nonsense\n", 0, false);
        check("", 0, false);
    }

    #[test]
    fn only_the_overflow_id_can_be_of_unknown_owners() {
        assert!(!is_unknown_owner(0));
        assert_eq!(is_unknown_owner(overflow_id()), !is_initial());
    }

    #[test]
    fn this_process_has_a_user() {
        assert!(maps(rustix::process::geteuid().as_raw()));
    }
}
