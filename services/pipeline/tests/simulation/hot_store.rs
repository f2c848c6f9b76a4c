//! A hot store that keeps, as ReplacingMergeTree does, the row with the highest version.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kappa_core::rows::{AnomalyRow, WindowRow};
use kappa_pipeline::partition::seams::{HotRows, HotStore, SegmentQuality};

use crate::mutation::Mutation;
use crate::world::{World, lock};

/// Series, window start, segment.
pub(crate) type RowKey = (String, i64, i64);

#[derive(Debug, Default)]
pub(crate) struct HotTables {
    pub(crate) windows: BTreeMap<RowKey, WindowRow>,
    /// By offset.
    pub(crate) anomalies: BTreeMap<i64, AnomalyRow>,
    /// By segment, site, metric and minute.
    pub(crate) quality: BTreeMap<(i64, String, String, i64), SegmentQuality>,
}

#[derive(Debug, Clone)]
pub(crate) struct SimHotStore {
    pub(crate) world: Arc<World>,
    pub(crate) tables: Arc<Mutex<HotTables>>,
}

impl SimHotStore {
    fn apply(&self, rows: &HotRows) {
        let mut tables = lock(&self.tables);
        for row in &rows.windows {
            let series = row.series.parts().collect::<Vec<_>>().join("/");
            let key = (series, row.window_start_ms, row.segment);
            if self.world.breaks_rule(Mutation::VersionFromTheClock) {
                tables.windows.insert(key, row.clone());
                continue;
            }
            match tables.windows.get(&key) {
                Some(old) if old.version == row.version && old != row => self.world.breaks(format!(
                    "two different rows of one version, so that the store cannot tell which is right:\n{old:?}\n{row:?}"
                )),
                Some(old) if old.version > row.version => {}
                _ => _ = tables.windows.insert(key, row.clone()),
            }
        }
        for quality in &rows.quality {
            let row = &quality.row;
            let key = (quality.segment, row.site.to_string(), row.metric.to_string(), row.minute_ms);
            if let Some(old) = tables.quality.insert(key, quality.clone())
                && old != *quality
            {
                self.world.breaks(format!("two different rows of quality of one segment:\n{old:?}\n{quality:?}"));
            }
        }
        if self.world.breaks_rule(Mutation::LostAnomalies) {
            return;
        }
        for row in &rows.anomalies {
            if let Some(old) = tables.anomalies.insert(row.offset, row.clone())
                && old != *row
            {
                self.world.breaks(format!("two different anomalies of one offset:\n{old:?}\n{row:?}"));
            }
        }
    }
}

impl SimHotStore {
    /// Writes the rows after some seconds, whatever becomes of the process that sent them.
    fn apply_later(&self, rows: &Arc<HotRows>) {
        let (store, rows) = (self.clone(), Arc::clone(rows));
        self.world.later(async move { store.apply(&rows) });
    }
}

impl HotStore for SimHotStore {
    async fn write(&self, rows: Arc<HotRows>) {
        if self.world.breaks_rule(Mutation::CommitBeforeRows) {
            return self.apply_later(&rows);
        }
        loop {
            self.world.delay().await;
            if self.world.happens(self.world.faults().store_errors) {
                self.world.count(|outcome| outcome.store_faults += 1);
                continue;
            }
            self.apply(&rows);
            if self.world.happens(self.world.faults().duplicates) {
                self.world.count(|outcome| outcome.duplicates += 1);
                self.apply_later(&rows);
            }
            if self.world.happens(self.world.faults().lost_acknowledgements) {
                self.world.count(|outcome| outcome.store_faults += 1);
                continue;
            }
            self.world.delay().await;
            return;
        }
    }
}
