//! From perf's samples to stacks that are counted.

use std::collections::BTreeMap;

/// The number of samples of each stack: outermost first, the process's name before all.
pub(super) type Stacks = BTreeMap<Vec<String>, u64>;

/// Reads what `perf script --fields comm,ip,sym` prints: a line with the process's name, a line with
/// address and symbol for each frame, innermost first, an empty line.
pub(super) fn fold(script: &str) -> Stacks {
    let mut stacks = Stacks::new();
    for sample in script.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
        let Some(process) = lines.next() else { continue };
        let mut stack: Vec<String> = lines.map(symbol).collect();
        stack.push(process.trim().to_owned());
        stack.reverse();
        stack.dedup_by(|inner, outer| inner == "[unknown]" && outer == "[unknown]");
        *stacks.entry(stack).or_default() += 1;
    }
    stacks
}

/// The function of a frame, without the hash that the compiler adds to its name.
fn symbol(line: &str) -> String {
    let line = line.trim_start();
    let name = line.split_once(' ').map_or(line, |(_address, name)| name).trim();
    let name = name.split_once("+0x").map_or(name, |(name, _offset)| name);
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            path.to_owned()
        }
        _ => name.to_owned(),
    }
}

/// The share of each process in all samples, in percent, the largest first.
pub(super) fn shares_by_process(stacks: &Stacks) -> Vec<(&str, f64)> {
    let total: u64 = stacks.values().sum();
    let mut shares = BTreeMap::<&str, u64>::new();
    for (stack, count) in stacks {
        if let Some(process) = stack.first() {
            *shares.entry(process).or_default() += count;
        }
    }
    let mut shares: Vec<_> = shares
        .into_iter()
        .map(|(name, count)| (name, count as f64 * 100.0 / total as f64))
        .collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "slot-0 \n\tffffffff81 do_mount\n\t    55aa worker::slot::Slot::run::h0123456789abcdef\n\n\
                          slot-0 \n\tffffffff81 do_mount\n\t    55aa worker::slot::Slot::run::h0123456789abcdef\n\n\
                          sandbox-helper \n\t 55ab <T as core::fmt::Display>::fmt\n\n";

    #[test]
    fn equal_stacks_are_counted_from_the_outside_in() {
        let stacks = fold(SCRIPT);
        let mount = ["slot-0", "worker::slot::Slot::run", "do_mount"].map(String::from).to_vec();
        let format =
            ["sandbox-helper", "<T as core::fmt::Display>::fmt"].map(String::from).to_vec();
        assert_eq!(stacks, Stacks::from([(mount, 2), (format, 1)]));
        let shares = shares_by_process(&stacks);
        assert_eq!(
            shares.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["slot-0", "sandbox-helper"]
        );
    }

    #[test]
    fn no_samples_are_no_stacks() {
        assert!(fold("").is_empty());
        assert!(fold("\n\n\n").is_empty());
    }
}
