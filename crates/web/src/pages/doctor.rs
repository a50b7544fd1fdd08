//! What `doctor` says of this machine.

use crate::html::{Escaped, layout};

pub(crate) fn page(report: &str) -> String {
    layout("Doctor", &format!("<pre>{}</pre>\n", Escaped(report)))
}
