//! The event stream: the newest frames at once, then each new one. A viewer too slow for all of them gets the newest.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{ApiError, Shared};
use crate::metrics::Metrics;

/// `event: pulse` and `event: fleet`, each with a frame as JSON.
pub(super) async fn stream(State(shared): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let Ok(place) = Arc::clone(&shared.viewers).try_acquire_owned() else {
        shared.metrics.refused();
        return Err(ApiError::Busy("as many people watch already as are allowed (--max-viewers)".to_owned()));
    };
    let viewer = Viewer::new(&shared, place);
    shared.feeds.arrived.notify_waiters();
    let events = Sse::new(viewer.events()).keep_alive(KeepAlive::default());
    // A proxy that collects the stream would make it useless.
    Ok(([("x-accel-buffering", "no")], events).into_response())
}

/// The newest frames, for programs: `{"pulse": …, "fleet": …}`.
pub(super) async fn live(State(shared): State<Arc<Shared>>) -> Result<Response, ApiError> {
    if !shared.feeds.are_filled() {
        return Err(ApiError::Busy("the first answers are awaited".to_owned()));
    }
    let body = format!(r#"{{"pulse":{},"fleet":{}}}"#, *shared.feeds.pulse.borrow(), *shared.feeds.fleet.borrow());
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Holds a place among the viewers for as long as its stream lives.
struct Viewer {
    pulse: watch::Receiver<Arc<str>>,
    fleet: watch::Receiver<Arc<str>>,
    metrics: Arc<Metrics>,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    fn new(shared: &Shared, place: OwnedSemaphorePermit) -> Self {
        let mut viewer = Self {
            pulse: shared.feeds.pulse.subscribe(),
            fleet: shared.feeds.fleet.subscribe(),
            metrics: Arc::clone(&shared.metrics),
            _place: place,
        };
        for feed in [&mut viewer.pulse, &mut viewer.fleet] {
            // Before the first frame there is nothing to show.
            if !feed.borrow().is_empty() {
                feed.mark_changed();
            }
        }
        viewer.metrics.viewers(1);
        viewer
    }

    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        futures::stream::unfold(self, |mut viewer| async move {
            let (name, frame) = viewer.next().await?;
            Some((Ok(Event::default().event(name).data(&*frame)), viewer))
        })
    }

    /// The next frame; `None` when the poller has ended.
    async fn next(&mut self) -> Option<(&'static str, Arc<str>)> {
        let (name, feed) = tokio::select! {
            changed = self.fleet.changed() => { changed.ok()?; ("fleet", &mut self.fleet) }
            changed = self.pulse.changed() => { changed.ok()?; ("pulse", &mut self.pulse) }
        };
        let frame = Arc::clone(&feed.borrow_and_update());
        Some((name, frame))
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.metrics.viewers(-1);
    }
}
