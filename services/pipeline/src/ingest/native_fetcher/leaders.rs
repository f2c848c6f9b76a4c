//! Finds out who leads the partitions, whenever somebody needs to know.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::error;

use super::super::broker_queries;
use super::board::Board;
use super::broker_thread::BrokerThread;

/// When nobody asked for so long, the next trouble is a new one.
const CALM: Duration = Duration::from_secs(10);

/// Asks for the leaders while a partition has none, with pauses that become longer while that does not help.
pub(super) async fn follow(board: Arc<Board>) {
    let mut pauses = broker_queries::pauses();
    let mut calm_since = Instant::now();
    loop {
        board.leaders_wanted.notified().await;
        if calm_since.elapsed() > CALM {
            pauses = broker_queries::pauses();
        }
        let leaders = broker_queries::leaders(&board.shared).await;
        let (complete, new) = board.set_leaders(leaders);
        for broker in new {
            let thread = BrokerThread::new(broker, Arc::clone(&board));
            let started = std::thread::Builder::new().name(format!("kappa-fetch-{broker}")).spawn(|| thread.run());
            if let Err(error) = started {
                error!(broker, "cannot start a thread for fetching: {error}");
            }
        }
        if !complete {
            board.leaders_wanted.notify_one();
        }
        calm_since = Instant::now();
        tokio::time::sleep(pauses.next().unwrap_or(CALM)).await;
    }
}
