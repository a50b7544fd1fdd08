//! Pages that change by themselves: server-sent events.
//!
//! ```text
//!  first subscriber ──► task: the page once a second ──► watch ──┬─► subscriber
//!                         ▲  ends with the last one              └─► subscriber
//! ```
//!
//! The page is made once for all that look at it. A slow reader misses states in between and costs no memory for
//! them. Each subscriber holds a connection, so their number is bounded; a page that finds no room asks for its
//! changes as it would without events. Pages are whole without all this: a script only keeps them current.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::page;
use crate::site::{MayRead, Site};

/// Subscribers at a time: more than people look at one worker, and few beside the descriptors of a server.
const SUBSCRIBERS_MAX: usize = 64;

/// The time between two states. A person sees no more.
const PERIOD: Duration = Duration::from_secs(1);

/// The topic of a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// The part of the first page that changes, as HTML.
    Now,
    /// The number of actions that have ended: a page about the past is out of date.
    Ended,
}

/// The news for subscribers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    now: Arc<str>,
    ended: u64,
}

/// The subscribers.
pub(crate) struct Live {
    places: Arc<Semaphore>,
    state: watch::Sender<State>,
    is_made: AtomicBool,
}

impl Live {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(SUBSCRIBERS_MAX)),
            state: watch::channel(State::default()).0,
            is_made: AtomicBool::new(false),
        })
    }

    /// The events for a new subscriber, for as long as its headers give it the right to read.
    pub(crate) fn events(self: &Arc<Self>, site: Site, headers: HeaderMap, of: Of) -> Response {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let text = "too many pages are kept current; this one asks for its changes itself";
            return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "60")], text).into_response();
        };
        let subscriber = Subscriber {
            state: self.state.subscribe(),
            may_read: Arc::clone(&site.may_read),
            headers,
            of,
            has_begun: false,
            ended: None,
            _place: place,
        };
        if !self.is_made.swap(true, Ordering::AcqRel) {
            tokio::spawn(Arc::clone(self).make(site));
        }
        let events = stream::unfold(subscriber, |mut subscriber| async move {
            let event = subscriber.next().await?;
            Some((Ok::<_, Infallible>(event), subscriber))
        });
        Sse::new(events).keep_alive(KeepAlive::new()).into_response()
    }

    /// Makes states until the last subscriber is gone.
    async fn make(self: Arc<Self>, site: Site) {
        loop {
            while self.state.receiver_count() > 0 {
                let now = &site.archive.now;
                let text = page::fragment(&now.snapshot(), &(site.store)());
                let new = State { now: text.into(), ended: now.ended() };
                self.state.send_if_modified(|old| {
                    let is_new = *old != new;
                    *old = new;
                    is_new
                });
                tokio::time::sleep(PERIOD).await;
            }
            self.is_made.store(false, Ordering::Release);
            // One that came in between did not start another task.
            let is_needed = self.state.receiver_count() > 0;
            if !is_needed || self.is_made.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}

struct Subscriber {
    state: watch::Receiver<State>,
    may_read: MayRead,
    headers: HeaderMap,
    of: Of,
    /// Whether the present state was looked at: only then the next one is waited for.
    has_begun: bool,
    /// The number that was told last.
    ended: Option<u64>,
    _place: OwnedSemaphorePermit,
}

impl Subscriber {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if std::mem::replace(&mut self.has_begun, true) {
                self.state.changed().await.ok()?;
            }
            // A token may have been taken away since the page was opened.
            if !(self.may_read)(&self.headers) {
                return None;
            }
            let State { now, ended } = self.state.borrow_and_update().clone();
            let is_made = !now.is_empty();
            match self.of {
                Of::Now if is_made => return Some(Event::default().event("now").data(now)),
                Of::Ended if is_made && self.ended != Some(ended) => {
                    self.ended = Some(ended);
                    return Some(Event::default().event("ended").data(ended.to_string()));
                }
                Of::Now | Of::Ended => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::BodyDataStream;
    use futures_util::StreamExt as _;

    use super::*;
    use crate::site::tests::site;

    /// The next event as text; `None` at the end of the stream.
    async fn next(body: &mut BodyDataStream) -> Option<String> {
        let bytes = body.next().await?.unwrap();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn subscribe(live: &Arc<Live>, site: &Site, of: Of) -> BodyDataStream {
        let answer = live.events(site.clone(), HeaderMap::new(), of);
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body().into_data_stream()
    }

    #[tokio::test]
    async fn a_subscriber_gets_the_state_and_its_changes() {
        let (live, site) = (Live::new(), site(Arc::new(|_| true)));
        let mut page = subscribe(&live, &site, Of::Now);
        let event = next(&mut page).await.unwrap();
        assert!(event.starts_with("event: now\ndata: <section"), "{event}");
        assert!(event.ends_with("\n\n") && event.contains("\ndata: "), "{event}");
        let mut ended = subscribe(&live, &site, Of::Ended);
        assert_eq!(next(&mut ended).await.unwrap(), "event: ended\ndata: 0\n\n");
    }

    #[tokio::test]
    async fn the_number_of_subscribers_is_bounded() {
        let (live, site) = (Live::new(), site(Arc::new(|_| true)));
        let all: Vec<_> = (0..SUBSCRIBERS_MAX).map(|_| subscribe(&live, &site, Of::Now)).collect();
        let refused = live.events(site.clone(), HeaderMap::new(), Of::Now);
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(all);
        drop(subscribe(&live, &site, Of::Now));
    }

    #[tokio::test]
    async fn a_right_that_is_taken_away_ends_the_stream() {
        let may = Arc::new(AtomicBool::new(true));
        let may_read = Arc::clone(&may);
        let site = site(Arc::new(move |_| may_read.load(Ordering::Relaxed)));
        let live = Live::new();
        let mut page = subscribe(&live, &site, Of::Now);
        assert!(next(&mut page).await.is_some());
        may.store(false, Ordering::Relaxed);
        live.state.send_modify(|state| state.now = "changed".into());
        assert_eq!(next(&mut page).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_made_while_no_page_is_open() {
        let (live, site) = (Live::new(), site(Arc::new(|_| true)));
        for _ in 0..2 {
            let mut page = subscribe(&live, &site, Of::Ended);
            assert!(next(&mut page).await.is_some());
            drop(page);
            while live.is_made.load(Ordering::Acquire) {
                tokio::time::sleep(PERIOD).await;
            }
        }
        assert_eq!(live.places.available_permits(), SUBSCRIBERS_MAX);
    }
}
