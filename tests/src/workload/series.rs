//! Time-series collections: measurements that the server gathers into buckets.

use anyhow::Result;
use bson::{DateTime, Document, doc};
use rand::Rng;

use super::Writer;

/// The time-series collection of each database.
pub const SERIES: &str = "weather";

/// Makes it. The expiry is far in the future: nothing expires while a test runs.
pub fn create_series() -> Document {
    let options = doc! { "timeField": "at", "metaField": "station", "granularity": "minutes" };
    doc! { "create": SERIES, "timeseries": options, "expireAfterSeconds": 1_000_000_000_i64 }
}

impl Writer {
    pub(super) async fn series(&mut self) -> (&'static str, Result<()>) {
        let database = self.database();
        if self.does_ddl() && self.chance(0.05) {
            return (
                "drop series",
                database.collection::<Document>(SERIES).drop().await.map_err(Into::into),
            );
        }
        if self.does_ddl() && self.chance(0.3) {
            let create = create_series();
            return (
                "create series",
                database.run_command(create).await.map(drop).map_err(Into::into),
            );
        }
        if !self.spec.ddl
            || database
                .list_collection_names()
                .await
                .is_ok_and(|names| names.iter().any(|n| n == SERIES))
        {
            let measurements: Vec<_> = (0..self.rng.gen_range(1..6)).map(|_| self.measurement()).collect();
            let inserted = database.collection::<Document>(SERIES).insert_many(measurements).await;
            return ("measure", inserted.map(drop).map_err(Into::into));
        }
        self.crud().await
    }

    fn measurement(&mut self) -> Document {
        let at = DateTime::from_millis(1_790_000_000_000 + self.rng.gen_range(0..100_000_000));
        doc! { "at": at, "station": self.rng.gen_range(0..3), "t": self.rng.r#gen::<f64>(), "note": "dry" }
    }
}
