//! Where to read and where to listen; and the bounds on what anything may cost.

use std::net::SocketAddr;
use std::time::Duration;

use url::Url;

/// How the live page is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the page is served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// ClickHouse's HTTP interface.
    pub click_house: Url,
    /// Its database.
    pub database: String,
    /// A user who may only read.
    pub user: String,
    /// That user's password.
    pub password: Option<Password>,
    /// `/status` of each pipeline.
    pub pipelines: Vec<Url>,
    /// The first field of the series key.
    pub sensor_column: String,
    /// The second field of the series key.
    pub metric_column: String,
    /// Length of a window (`windows.length` of the pipeline).
    pub window: Duration,
    /// Open event streams at once.
    pub max_viewers: usize,
}

impl Settings {
    /// Settings with the pipeline's defaults.
    pub fn new(listen: SocketAddr, click_house: Url, pipelines: Vec<Url>) -> Self {
        Self {
            listen,
            click_house,
            database: "kappa".to_owned(),
            user: "default".to_owned(),
            password: None,
            pipelines,
            sensor_column: "sensor_id".to_owned(),
            metric_column: "metric".to_owned(),
            window: Duration::from_mins(1),
            max_viewers: 100,
        }
    }
}

/// A password, which is never shown.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// Takes the text of a file, without the line break at its end.
    pub fn new(text: &str) -> Self {
        Self(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("(hidden)")
    }
}

/// Points of a chart: more than a screen has columns are of no use.
pub const MAX_POINTS: i64 = 1_500;

/// The longest range of a chart.
pub const MAX_RANGE: Duration = Duration::from_hours(31 * 24);

/// Anomalies of one answer.
pub const MAX_ANOMALIES: usize = 500;

/// Anomalies in every frame of the event stream: what came since the last one, with room for frames that were missed.
pub const LIVE_ANOMALIES: usize = 100;

/// Sensors of one search.
pub const MAX_FOUND: usize = 20;

/// Sensors that are listed as the worst.
pub const WORST_SENSORS: usize = 12;

/// Sites that are shown: the ones with the most events.
pub const MAX_SITES: usize = 1_000;

/// Bytes of a name in a request: sensor, metric, site, search.
pub const MAX_NAME_BYTES: usize = 256;

/// Answers made for one viewer at once; more wait for a moment, then are refused.
pub const MAX_QUERIES: usize = 8;

/// How long a request waits for its turn.
pub const QUEUE_PATIENCE: Duration = Duration::from_secs(1);
