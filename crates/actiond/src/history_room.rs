//! The disk space of the history, which the limit of the store includes.

use history::Room;
use store::{Beside, Store};

/// The directory of the history in the root directory.
pub(crate) const HISTORY: &str = "history";

/// The history takes at most one in so many bytes of `--cas-size`: its default is meant for stores of gigabytes, and a
/// small store is there for blobs.
const SHARE: u64 = 8;

/// The room of a history below the root of a store.
pub(crate) struct HistoryRoom {
    /// The operator's bound, in bytes.
    bytes_max: u64,
    account: Beside,
}

impl HistoryRoom {
    pub(crate) fn new(store: &Store, bytes_max: u64) -> Self {
        Self { bytes_max, account: store.charge_beside() }
    }
}

impl Room for HistoryRoom {
    fn bytes_max(&self) -> u64 {
        self.account.limit_bytes().map_or(self.bytes_max, |limit| self.bytes_max.min(limit / SHARE))
    }

    fn take(&self, bytes: u64) {
        self.account.set(bytes);
    }
}

/// Charges a history that nobody writes now, until the account is dropped.
pub(crate) fn charge(store: &Store) -> Beside {
    let account = store.charge_beside();
    account.set(history::bytes_in(&store.path().join(HISTORY)));
    account
}
