//! Ids of this machine that belong to somebody, as its own files say. Users of a directory service are not looked up.

use std::fmt;
use std::fs;
use std::ops::Range;

/// An id that a file gives to somebody.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    file: &'static str,
    name: String,
    first: u64,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, name, first } = self;
        write!(f, "{file} gives the id {first} to {name:?}")
    }
}

/// The ids that a line of a file gives away.
type Ids = fn(&str) -> Option<Range<u64>>;

/// The files, see passwd(5), group(5), subuid(5) and subgid(5).
const FILES: [(&str, Ids); 5] = [
    ("/etc/passwd", |line| one(line, 2)),
    ("/etc/passwd", |line| one(line, 3)),
    ("/etc/group", |line| one(line, 2)),
    ("/etc/subuid", several),
    ("/etc/subgid", several),
];

/// The first of `ids` that belongs to a user, a group, or the subordinate ids of one.
pub(crate) fn first_taken(ids: &Range<u64>) -> Option<Taken> {
    FILES.iter().find_map(|(file, of_line)| {
        // A machine without such a file gives none away.
        taken_in(file, &fs::read_to_string(file).unwrap_or_default(), *of_line, ids)
    })
}

fn taken_in(file: &'static str, text: &str, of_line: Ids, ids: &Range<u64>) -> Option<Taken> {
    text.lines().find_map(|line| {
        let given = of_line(line)?;
        let first = given.start.max(ids.start);
        let name = line.split(':').next()?.to_owned();
        (first < given.end.min(ids.end)).then_some(Taken { file, name, first })
    })
}

fn one(line: &str, field: usize) -> Option<Range<u64>> {
    let id: u64 = line.split(':').nth(field)?.parse().ok()?;
    Some(id..id.checked_add(1)?)
}

fn several(line: &str) -> Option<Range<u64>> {
    let mut fields = line.split(':').skip(1);
    let first: u64 = fields.next()?.parse().ok()?;
    let number: u64 = fields.next()?.parse().ok()?;
    Some(first..first.saturating_add(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_its_ids_away() {
        let ids = 100_000..100_064;
        let check = |of_line: Ids, text: &str, expected: Option<(&str, u64)>| {
            let found = taken_in("file", text, of_line, &ids);
            let found = found.as_ref().map(|taken| (taken.name.as_str(), taken.first));
            assert_eq!(found, expected, "{text:?}");
        };
        let user: Ids = |line| one(line, 2);
        check(
            user,
            "root:x:0:0::/root:/bin/sh\nme:x:100063:100::/:/bin/sh\n",
            Some(("me", 100_063)),
        );
        check(user, "a:x:99999:100::/:/bin/sh\nb:x:100064:100::/:/bin/sh\nbroken\n", None);
        check(|line| one(line, 3), "me:x:1000:100000::/:/bin/sh\n", Some(("me", 100_000)));
        check(several, "other:1:99999\nme:65536:65536\n", Some(("me", 100_000)));
        check(several, "me:100010:1\n", Some(("me", 100_010)));
        check(several, "me:1:18446744073709551615\n", Some(("me", 100_000)));
        check(several, "a:100000:0\nb:100064:65536\nc:34464:65536\nx:y:z\n#\n\n", None);
    }
}
