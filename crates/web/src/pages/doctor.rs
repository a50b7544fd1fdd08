//! The page with the findings of `doctor` on this machine.

use crate::html::{Escaped, layout};

pub(crate) fn page(report: &str) -> String {
    layout("Doctor", &format!("<pre class=\"whole\" tabindex=\"0\">{}</pre>\n", Escaped(report)))
}
