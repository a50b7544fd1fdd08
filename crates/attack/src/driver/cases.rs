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
mod network;
mod outputs;
mod privileges;
mod store;
mod surroundings;
mod trees;

use crate::case::Case;

/// In the order in which they run: what looks at the end of all comes last.
pub(crate) const GROUPS: &[(&str, &[Case])] = &[
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
    ("liars", liars::CASES),
    ("access", access::CASES),
    ("denial", denial::CASES),
    ("store", store::CASES),
];
