//! Everything that is known of past and present actions, for the page and for the services.

use std::sync::Arc;

use events::Listener;

use crate::feed::Feed;
use crate::now::Now;
use crate::reader::{ReadError, Reader};
use crate::writer::{History, HistoryStats, Options};

/// An error of asking the archive.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The operator turned the history off.
    #[error("the server keeps no history; `--history-days` turns it on")]
    Off,
    /// The database can't be read. A broken one is started anew.
    #[error("the history can't be asked; a broken one is started anew, so ask again")]
    Read(#[from] ReadError),
}

/// Past and present actions. Clones are the same archive.
#[derive(Clone, Default)]
pub struct Archive {
    history: Option<(Arc<History>, Arc<Reader>)>,
    /// New records.
    pub feed: Arc<Feed>,
    /// Running and queued actions.
    pub now: Arc<Now>,
}

impl Archive {
    /// An archive with a database, or without one.
    ///
    /// # Errors
    /// When the thread of the history can't be started.
    pub fn open(options: Option<Options>) -> std::io::Result<Self> {
        let history = options.map(History::start).transpose()?.map(Arc::new);
        let history = history.map(|history| {
            let reader = Arc::new(history.reader());
            (history, reader)
        });
        Ok(Self { history, ..Self::default() })
    }

    /// The parts that listen to events.
    pub fn listeners(&self) -> Vec<Arc<dyn Listener>> {
        let mut listeners: Vec<Arc<dyn Listener>> =
            vec![Arc::clone(&self.now) as Arc<dyn Listener>, Arc::clone(&self.feed) as _];
        if let Some((history, _)) = &self.history {
            listeners.push(Arc::clone(history) as _);
        }
        listeners
    }

    /// Whether there is a database.
    pub fn has_history(&self) -> bool {
        self.history.is_some()
    }

    /// Numbers about the database; all zero without one.
    pub fn stats(&self) -> HistoryStats {
        self.history.as_ref().map(|(history, _)| history.stats()).unwrap_or_default()
    }

    /// Asks the database a question, after everything that has happened was written to it. Waits for the
    /// disk.
    ///
    /// # Errors
    /// [`AskError`] when there is no database, or it can't be read.
    pub fn ask<T>(
        &self,
        question: impl FnOnce(&Reader) -> Result<T, ReadError>,
    ) -> Result<T, AskError> {
        let (history, reader) = self.history.as_ref().ok_or(AskError::Off)?;
        history.flush();
        question(reader).map_err(|error| {
            if matches!(error, ReadError::Broken(_)) {
                history.report_broken();
            }
            error.into()
        })
    }
}
