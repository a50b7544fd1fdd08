//! All cases, by what they are after.
//!
//! To add one is to add a line to a table.

mod access;
mod denial;
mod files;
mod inputs;
mod kernel;
mod leftovers;
mod liars;
mod namespaces;
mod neighbours;
mod network;
mod outputs;
mod privileges;
mod store;
mod surroundings;
mod trees;
mod whole_root;

use crate::case::Case;

/// In the order in which they run: what looks at the end of all comes last.
const GROUPS: &[(&str, &[Case])] = &[
    ("files", files::CASES),
    ("surroundings", surroundings::CASES),
    ("privileges", privileges::CASES),
    ("namespaces", namespaces::CASES),
    ("kernel", kernel::CASES),
    ("network", network::CASES),
    ("inputs", inputs::CASES),
    ("outputs", outputs::CASES),
    ("leftovers", leftovers::CASES),
    ("trees", trees::CASES),
    ("whole-root", whole_root::CASES),
    ("liars", liars::CASES),
    ("access", access::CASES),
    ("neighbours", neighbours::CASES),
    ("denial", denial::CASES),
    ("store", store::CASES),
];

/// Groups whose actions are tried a second time with the input root as root, which must change nothing.
const ALSO_IN_THE_ROOT: [&str; 7] =
    ["files", "surroundings", "privileges", "namespaces", "kernel", "network", "outputs"];

/// All cases with their names, in order.
pub(crate) fn all() -> Vec<(String, Case)> {
    let mut all = Vec::new();
    for (group, cases) in GROUPS {
        all.extend(cases.iter().map(|case| (format!("{group}/{}", case.name), *case)));
        if ALSO_IN_THE_ROOT.contains(group) {
            let again = cases.iter().filter_map(|case| case.in_the_root());
            all.extend(again.map(|case| (format!("{group}-in-the-root/{}", case.name), case)));
        }
    }
    all
}
