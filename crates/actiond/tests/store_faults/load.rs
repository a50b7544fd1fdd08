//! Callers that store blobs and cached results until they are stopped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use model::proto::{ActionResult, OutputFile, UpdateActionResultRequest};
use testkit::{Client, Daemon, Digest, eventually_async};

use crate::disk::Numbers;

/// The callers that upload at the same time.
const CALLERS: u64 = 4;

/// The content of a blob, by its number.
pub(crate) fn content(number: u64) -> Vec<u8> {
    let size = [10, 900, 4_096, 20_000, 150_000, 600_000][number as usize % 6];
    let mut numbers = Numbers::new(number);
    let mut content: Vec<_> =
        (0..size / 8 + 1).flat_map(|_| numbers.below(u64::MAX).to_le_bytes()).collect();
    content.truncate(size);
    content
}

/// The action whose cached result names a blob. Only every third blob has one.
pub(crate) fn action(client: &Client, number: u64) -> Option<Digest> {
    number.is_multiple_of(3).then(|| client.digest(format!("action {number}")))
}

/// Stores a blob, and a cached result that names it.
pub(crate) async fn store(client: &Client, number: u64) -> anyhow::Result<()> {
    let content = content(number);
    let digest = client.digest(&content);
    if number.is_multiple_of(2) {
        client.write(&client.upload_name(&digest), &content, 64 << 10).await?;
    } else {
        client.put(content).await?;
    }
    if let Some(action) = action(client, number) {
        let file = OutputFile {
            path: "out".to_owned(),
            digest: Some(digest.to_proto()),
            ..OutputFile::default()
        };
        let request = UpdateActionResultRequest {
            action_digest: Some(action.to_proto()),
            action_result: Some(ActionResult {
                output_files: vec![file],
                ..ActionResult::default()
            }),
            ..UpdateActionResultRequest::default()
        };
        client.action_cache().update_action_result(request).await?;
    }
    Ok(())
}

/// The work of callers that were stopped.
pub(crate) struct Ended {
    /// The numbers of the blobs that the server acknowledged.
    pub(crate) acknowledged: Vec<u64>,
    /// The errors of the others.
    pub(crate) errors: Vec<String>,
}

#[derive(Default)]
struct Calls {
    acknowledged: Vec<u64>,
    errors: Vec<String>,
}

impl Calls {
    fn note(&mut self, number: u64, stored: anyhow::Result<()>) {
        match stored {
            Ok(()) => self.acknowledged.push(number),
            Err(error) => self.errors.push(format!("{error:#}")),
        }
    }
}

/// Callers that store blobs until they are stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<Mutex<Calls>>,
    callers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Starts them.
    pub(crate) fn start(daemon: &Daemon, next: &Arc<AtomicU64>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let calls = Arc::new(Mutex::new(Calls::default()));
        let callers = (0..CALLERS).map(|_| {
            let (client, next) = (daemon.client(), Arc::clone(next));
            let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let stored = store(&client, number).await;
                    calls.lock().expect("no panic").note(number, stored);
                    tokio::task::yield_now().await;
                }
            })
        });
        Self { callers: callers.collect(), stop, calls }
    }

    /// The calls that were answered, and those of them that were acknowledged.
    fn count(&self) -> (usize, usize) {
        let calls = self.calls.lock().expect("no panic");
        (calls.acknowledged.len() + calls.errors.len(), calls.acknowledged.len())
    }

    /// Waits for that many acknowledgements more.
    pub(crate) async fn wait_for(&self, more: u64) -> anyhow::Result<()> {
        let goal = self.count().1 + more as usize;
        eventually_async("blobs are acknowledged", async || Ok(self.count().1 >= goal)).await
    }

    /// Waits for that many answers more, acknowledgements or errors.
    pub(crate) async fn wait_for_answers(&self, more: u64) -> anyhow::Result<()> {
        let goal = self.count().0 + more as usize;
        eventually_async("calls are answered", async || Ok(self.count().0 >= goal)).await
    }

    /// Stops them.
    pub(crate) async fn stop(self) -> anyhow::Result<Ended> {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await?;
        }
        let Calls { acknowledged, errors } =
            std::mem::take(&mut *self.calls.lock().expect("no panic"));
        Ok(Ended { acknowledged, errors })
    }
}
