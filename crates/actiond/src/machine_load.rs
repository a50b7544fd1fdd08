//! The load of the machine, for the page.

use std::num::NonZero;
use std::sync::Arc;

use web::{Fact, Facts};

/// The facts, and the load of the machine: its processes that run or want to, as averages of 1, 5 and 15 minutes.
pub(crate) fn with_load(facts: Facts) -> Facts {
    Arc::new(move || {
        let mut facts = facts();
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let [one, five, fifteen] = rustix::system::sysinfo().loads.map(load);
        let value = format!("{one} {five} {fifteen} on {cores} cores");
        facts.push(Fact { name: "load", value });
        facts
    })
}

/// A load as the kernel counts it, in 1/65,536.
fn load(of_kernel: impl Into<u64>) -> String {
    let hundredths = of_kernel.into() * 100 / 65_536;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_a_fact_of_the_machine() {
        for (of_kernel, expected) in [(0_u64, "0.00"), (65_536, "1.00"), (99_000, "1.51")] {
            assert_eq!(load(of_kernel), expected);
        }
        let facts = with_load(Arc::new(Vec::new))();
        assert_eq!(facts.len(), 1);
        assert!(facts[0].name == "load" && facts[0].value.ends_with(" cores"), "{facts:?}");
    }
}
