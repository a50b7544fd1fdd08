//! Downloads on their way: whoever asks for a blob that is being fetched waits for that download.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// The keys of what is on its way. Clones are the same.
pub(crate) struct Flights<K: Eq + Hash + Clone>(Arc<Mutex<HashMap<K, watch::Receiver<()>>>>);

/// The duty to fetch something; when dropped, those who wait go on.
pub(crate) struct Claim<K: Eq + Hash + Clone> {
    pub(crate) key: K,
    flights: Flights<K>,
    _landing: watch::Sender<()>,
}

/// A download of somebody else.
pub(crate) struct Landing(watch::Receiver<()>);

/// The owner of a download.
pub(crate) enum Flight<K: Eq + Hash + Clone> {
    /// The caller's own.
    Mine(Claim<K>),
    /// Somebody else's.
    Others(Landing),
}

impl<K: Eq + Hash + Clone> Clone for Flights<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Eq + Hash + Clone> Default for Flights<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash + Clone> Flights<K> {
    /// Joins the download of `key`, or begins one.
    pub(crate) fn board(&self, key: K) -> Flight<K> {
        let mut flights = self.0.lock();
        if let Some(landing) = flights.get(&key) {
            return Flight::Others(Landing(landing.clone()));
        }
        let (sender, receiver) = watch::channel(());
        flights.insert(key.clone(), receiver);
        Flight::Mine(Claim { key, flights: self.clone(), _landing: sender })
    }
}

impl<K: Eq + Hash + Clone> Drop for Claim<K> {
    fn drop(&mut self) {
        self.flights.0.lock().remove(&self.key);
    }
}

impl Landing {
    /// Waits until the download is over, however it ended.
    pub(crate) async fn wait(mut self) {
        // Nothing is ever sent: an error means that the claim was dropped.
        while self.0.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_fetches_and_the_others_wait() {
        let flights = Flights::<u32>::default();
        let Flight::Mine(claim) = flights.board(1) else { panic!("nobody fetches it") };
        assert!(matches!(flights.board(2), Flight::Mine(_)));
        let waiting: Vec<_> = (0..1000)
            .map(|_| match flights.board(1) {
                Flight::Others(landing) => tokio::spawn(landing.wait()),
                Flight::Mine(_) => panic!("it is being fetched"),
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|task| !task.is_finished()));
        drop(claim);
        for task in waiting {
            task.await.unwrap();
        }
        assert!(matches!(flights.board(1), Flight::Mine(_)), "the next one fetches again");
    }
}
