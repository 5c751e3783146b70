//! The ledger's clock: the one that all processes share, whatever their own clocks say.

use crate::{Ledger, Result, db::Db, error::During};
use jiff::{SignedDuration, Timestamp};
use std::sync::{Arc, RwLock};
use tokio::time::Instant;

/// The ledger's time at a moment of this process' monotonic clock.
#[derive(Clone, Debug)]
pub(crate) struct Clock(Arc<RwLock<(Instant, Timestamp)>>);

impl Clock {
    pub(crate) fn at(now: Timestamp) -> Self {
        Self(Arc::new(RwLock::new((Instant::now(), now))))
    }
}

impl Ledger {
    /// The ledger's time now: the database server's clock, or this machine's for an embedded ledger. Leases and waits are
    /// compared between machines whose own clocks may differ by minutes.
    pub fn now(&self) -> Timestamp {
        let (then, time) = *self.clock.0.read().expect("no one panics while holding the clock");
        time + SignedDuration::try_from(then.elapsed()).unwrap_or(SignedDuration::MAX)
    }

    /// Reads the ledger's clock again. To be called now and then: a machine may have slept.
    pub async fn set_clock(&self) -> Result<()> {
        let before = Instant::now();
        let time = match &self.db {
            Db::Sqlite(_) => Timestamp::now(),
            Db::Postgres(pool) => {
                let ms: i64 = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
                    .fetch_one(pool)
                    .await
                    .during("read the ledger's clock")?;
                Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
            }
        };
        let middle = before + before.elapsed() / 2;
        *self.clock.0.write().expect("no one panics while holding the clock") = (middle, time);
        Ok(())
    }
}
