//! Tells the operator, once for each name, which platform properties are ignored.

use std::collections::BTreeSet;

use model::Printable;
use parking_lot::Mutex;

/// The most names that are remembered, and thus logged. Fleets know a few dozen properties; a
/// client that invents more must not fill memory and log.
const MAX_NAMES: usize = 64;

/// The names that the log has named already.
#[derive(Debug, Default)]
pub(crate) struct IgnoredProperties(Mutex<BTreeSet<String>>);

impl IgnoredProperties {
    /// Logs those of `names` that are new.
    pub(crate) fn tell(&self, names: &[String]) {
        // The usual case, without the lock.
        if names.is_empty() {
            return;
        }
        for name in self.new_ones(names) {
            let name = Printable::name(name);
            tracing::info!(%name, "ignoring a platform property that is unknown to this server");
        }
    }

    fn new_ones<'a>(&self, names: &'a [String]) -> Vec<&'a String> {
        let mut told = self.0.lock();
        let is_new = |name: &&String| told.len() < MAX_NAMES && told.insert((*name).clone());
        names.iter().filter(is_new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_told_once_and_not_without_end() {
        let ignored = IgnoredProperties::default();
        let names = ["Pool".to_owned(), "cache-silo-key".to_owned()];
        assert_eq!(ignored.new_ones(&names[..1]), ["Pool"]);
        assert_eq!(ignored.new_ones(&names), ["cache-silo-key"]);
        let many: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        assert_eq!(ignored.new_ones(&many).len(), MAX_NAMES - 2);
        assert!(ignored.new_ones(&many).is_empty());
    }
}
