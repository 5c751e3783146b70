//! How many texts may go out in a time from one sender, in all campaigns and on all workers.

use crate::{
    By, Event, Ledger, Result,
    db::{read_conn, write_tx},
    error::During,
    events::append_event,
    time::ms,
};
use campaign::{SenderId, rate::Rate};
use jiff::Timestamp;

/// The reason of a row that waits for its sender's rate.
pub(crate) const BEHIND_RATE: &str = "waits for its turn at the rate of its sender";

/// Reads the rates of the senders of rows that are to be claimed: sender → (rate, spread up to). Locked, in one order for
/// all claims: those of all workers share them.
macro_rules! lock_sender_rates {
    ($tx:expr, $dialect:expr, $senders:expr, $operation:expr) => {{
        let mut rates = std::collections::BTreeMap::new();
        for sender in $senders {
            let found: Option<(i64, i64)> = sqlx::query_as($crate::db::sql(format!(
                "SELECT rate_us, rate_from FROM sender_rates WHERE sender = $1{}",
                $dialect.for_update()
            )))
            .bind(&sender)
            .fetch_optional(&mut *$tx)
            .await
            .during($operation)?;
            if let Some((text_us, spread_to)) = found {
                rates.insert(sender, (campaign::rate::Rate { text_us }, spread_to));
            }
        }
        rates
    }};
}
pub(crate) use lock_sender_rates;

/// When rows that find no room at a rate are looked at again, in milliseconds: (when, how many of them), soonest first.
///
/// A few at the next turn and twice as many at each later one: most rows are written once or twice, however long they wait.
pub(crate) fn turns(rate: Rate, spread_to: i64, rows: usize) -> Vec<(i64, usize)> {
    let (turn_us, texts) = rate.turn();
    let (mut turns, mut left, mut slot) = (Vec::new(), rows, 1);
    while left > 0 {
        let here = left.min(texts.saturating_mul(usize::try_from(slot).unwrap_or(usize::MAX)));
        turns.push(((spread_to + slot * turn_us) / 1_000, here));
        left -= here;
        slot *= 2;
    }
    turns
}

impl Ledger {
    /// Sets how many texts may go out in a time from a sender; `None` lifts the limit. Claims obey it from now on.
    pub async fn set_sender_rate(
        &self,
        sender: &SenderId,
        rate: Option<Rate>,
        by: By<'_>,
        words: &str,
        now: Timestamp,
    ) -> Result<()> {
        let operation = "set the rate of a sender";
        write_tx!(self, operation, |tx, dialect| {
            match rate {
                Some(rate) => sqlx::query(
                    "INSERT INTO sender_rates (sender, rate_us) VALUES ($1, $2)
                     ON CONFLICT (sender) DO UPDATE SET rate_us = excluded.rate_us",
                )
                .bind(sender.as_str())
                .bind(rate.text_us)
                .execute(&mut *tx)
                .await
                .during(operation)?,
                None => sqlx::query("DELETE FROM sender_rates WHERE sender = $1")
                    .bind(sender.as_str())
                    .execute(&mut *tx)
                    .await
                    .during(operation)?,
            };
            // What waits by the old rate is looked at anew.
            for statement in [
                "UPDATE chunks SET due_at = $3 WHERE state = 'waiting' AND due_at > $3 AND EXISTS
                    (SELECT 1 FROM messages m WHERE m.id BETWEEN chunks.id * 512 AND chunks.id * 512 + 511
                        AND m.state IN ('queued', 'scheduled') AND m.reason = $1 AND m.sender = $2)",
                "UPDATE messages SET not_before = NULL, reason = NULL, updated_at = $3
                 WHERE state IN ('queued', 'scheduled') AND reason = $1 AND sender = $2",
            ] {
                let wake = sqlx::query(statement).bind(BEHIND_RATE).bind(sender.as_str()).bind(ms(now));
                wake.execute(&mut *tx).await.during(operation)?;
            }
            let event = Event {
                reason: by.reason.map(str::to_owned),
                ..Event::new("sender_rate", by.who, format!("set the rate of {sender} to {words}"))
            };
            append_event!(tx, event, now).during(operation)?;
        });
        Ok(())
    }

    /// The senders that have a rate, by name.
    pub async fn sender_rates(&self) -> Result<Vec<(String, Rate)>> {
        let operation = "read the rates of the senders";
        let rates: Vec<(String, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as("SELECT sender, rate_us FROM sender_rates ORDER BY sender")
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
        });
        Ok(rates.into_iter().map(|(sender, text_us)| (sender, Rate { text_us })).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_gets_one_turn_and_few_turns_hold_all() {
        let rate = Rate::parse("100/min").unwrap();
        let turns = turns(rate, 60_000_000, 500);
        assert_eq!(turns.iter().map(|(_, rows)| rows).sum::<usize>(), 500);
        assert_eq!(turns[..3], [(63_000, 5), (66_000, 10), (72_000, 20)]);
        assert_eq!(turns.len(), 7);
    }
}
