//! Who gets no texts, and what orders an opt-out and a claim.
//!
//! A claim reads the opt-outs and commits later; one that committed in between would be overlooked. So both pass a gate:
//! claims and starts together, opt-outs alone. On Postgres it is an advisory lock that the transaction holds to its end;
//! SQLite's writing transactions come one after the other anyway.

use crate::{
    Event, Ledger, Result,
    claims::LIVE,
    db::{Dialect, read_conn, sql, write_tx},
    error::During,
    events::append_event,
    feed::json_ids,
    time::{instant, ms},
};
use campaign::{Msisdn, SenderId, SmsId};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::QueryBuilder;
use std::collections::{HashMap, HashSet};

/// Key of the advisory lock that is the gate; its first half tells it from the locks of owners.
const GATE: &str = "3186, 1";

/// How a transaction passes the gate between claims and opt-outs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gate {
    /// As a claim or a start: beside others of its kind.
    Claim,
    /// As an opt-out: alone.
    OptOut,
}

impl Gate {
    /// The statement that passes it, where one is needed. To be the first of its transaction: each later statement then
    /// sees what committed before the gate was passed, and nobody who waits here holds what another needs.
    pub(crate) fn pass(self, dialect: Dialect) -> Option<String> {
        match (dialect, self) {
            (Dialect::Sqlite, _) => None,
            (Dialect::Postgres, Self::Claim) => Some(format!("SELECT pg_advisory_xact_lock_shared({GATE})")),
            (Dialect::Postgres, Self::OptOut) => Some(format!("SELECT pg_advisory_xact_lock({GATE})")),
        }
    }
}

/// Passes the gate within a transaction of either database.
macro_rules! pass_gate {
    ($tx:expr, $gate:expr, $dialect:expr, $operation:expr) => {
        if let Some(statement) = $gate.pass($dialect) {
            sqlx::query($crate::db::sql(statement)).execute(&mut *$tx).await.during($operation)?;
        }
    };
}
pub(crate) use pass_gate;

/// An opt-out that a person enters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOptOut {
    /// Who gets no texts.
    pub number: Msisdn,
    /// From this sender; from none at all when absent.
    pub sender: Option<SenderId>,
    /// Why.
    pub reason: String,
}

/// What entering opt-outs did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OptedOut {
    /// New ones.
    pub added: u64,
    /// Those that were there before; left as they were.
    pub already: u64,
    /// Texts to these people that were begun before the opt-out and can't be recalled: in a call that is being made, or whose
    /// end is not known yet.
    pub under_way: u64,
}

/// What removing an opt-out did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OptedIn {
    /// Opt-outs that are gone.
    pub removed: u64,
    /// Opt-outs of the number that are still there.
    pub left: u64,
}

/// Who made an opt-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MadeBy {
    /// An operator: only an operator removes it.
    Operator,
    /// The person, by a message; START undoes it.
    Message,
}

/// An opt-out as the ledger has it. Its number is data for its operator; there is no `Debug` that shows it.
#[derive(Clone, Serialize)]
pub struct OptOut {
    /// Who gets no texts: E.164 digits.
    pub destination: String,
    /// From which sender; from none at all when absent.
    pub sender: Option<String>,
    /// Why.
    pub reason: String,
    /// Who made it, as a kind.
    pub made_by: MadeBy,
    /// The message that made it.
    pub sms_id: Option<SmsId>,
    /// Who made it.
    pub added_by: String,
    /// When.
    pub added_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct OptOutRow {
    destination: i64,
    sender: String,
    reason: String,
    made_by: String,
    sms_id: Option<i64>,
    added_by: String,
    added_at: i64,
}

/// Rows of one statement: SQLite takes 32,766 parameters.
const ROWS_A_STATEMENT: usize = 1_000;

/// Texts to these numbers that are being sent or may have been: begun, and not yet told apart by an `sms_id`.
fn under_way(dialect: Dialect) -> String {
    format!(
        "SELECT o.destination, o.sender FROM (SELECT DISTINCT sender FROM attempts
            WHERE state IN ('formed', 'sending', 'accepted', 'unknown')) s
         {then} messages o ON o.sender = s.sender AND o.destination {} AND {LIVE}
         {then} attempts a ON a.id = o.attempt_id
         WHERE o.state = 'attempted' AND a.state <> 'formed'",
        dialect.ids(1),
        then = dialect.then_join(),
    )
}

fn scope(sender: Option<&SenderId>) -> &str {
    sender.map_or("", SenderId::as_str)
}

/// `every sender`, or the sender's name.
pub(crate) fn from_whom(scope: &str) -> &str {
    if scope.is_empty() { "every sender" } else { scope }
}

impl Ledger {
    /// Enters opt-outs, all in one commit. A claim or a start that commits later sends none of these texts; one that
    /// committed before is counted in the answer.
    pub async fn opt_out(&self, new: &[NewOptOut], who: &str, now: Timestamp) -> Result<OptedOut> {
        let operation = "enter opt-outs";
        let mut seen = HashSet::new();
        let wanted: HashMap<(i64, &str), &NewOptOut> =
            new.iter().map(|new| ((new.number.as_u64().cast_signed(), scope(new.sender.as_ref())), new)).collect();
        // Each once, in the order given: a statement may not meet its own row.
        let new: Vec<&NewOptOut> =
            new.iter().filter(|new| seen.insert((new.number, scope(new.sender.as_ref())))).collect();
        let done = write_tx!(self, operation, |tx, dialect| {
            pass_gate!(tx, Gate::OptOut, dialect, operation);
            let mut done = OptedOut::default();
            for part in new.chunks(ROWS_A_STATEMENT) {
                let mut insert = QueryBuilder::new(
                    "INSERT INTO suppressions (destination, sender, made_by, reason, added_by, added_at) ",
                );
                insert.push_values(part, |mut row, new| {
                    row.push_bind(new.number.as_u64().cast_signed())
                        .push_bind(scope(new.sender.as_ref()))
                        .push_bind("operator")
                        .push_bind(&new.reason)
                        .push_bind(who)
                        .push_bind(ms(now));
                });
                insert.push(" ON CONFLICT (destination, sender, made_by) DO NOTHING RETURNING destination, sender");
                let mut added: Vec<(i64, String)> =
                    insert.build_query_as().fetch_all(&mut *tx).await.during(operation)?;
                // A database returns rows in any order; the log tells of them in one.
                added.sort_unstable();
                done.added += added.len() as u64;
                done.already += (part.len() - added.len()) as u64;
                if !added.is_empty() {
                    let mut events = QueryBuilder::new("INSERT INTO events (at, kind, who, detail, reason) ");
                    events.push_values(&added, |mut row, (number, sender)| {
                        let entered = wanted.get(&(*number, sender.as_str()));
                        let masked = entered.map(|new| new.number.masked().to_string()).unwrap_or_default();
                        row.push_bind(ms(now))
                            .push_bind("opted_out")
                            .push_bind(who)
                            .push_bind(format!("{masked} gets no texts from {}", from_whom(sender)))
                            .push_bind(entered.map(|new| new.reason.as_str()));
                    });
                    events.build().execute(&mut *tx).await.during(operation)?;
                }
                let numbers = json_ids(part.iter().map(|new| new.number.as_u64().cast_signed()));
                let live: Vec<(i64, String)> = sqlx::query_as(sql(under_way(dialect)))
                    .bind(numbers)
                    .fetch_all(&mut *tx)
                    .await
                    .during(operation)?;
                let of_these = |(number, sender): &&(i64, String)| {
                    part.iter().any(|new| {
                        new.number.as_u64().cast_signed() == *number
                            && new.sender.as_ref().is_none_or(|only| only.as_str() == sender)
                    })
                };
                done.under_way += live.iter().filter(of_these).count() as u64;
            }
            done
        });
        Ok(done)
    }

    /// Removes the opt-outs of a number: from one sender, or all of them. Whoever made them.
    pub async fn opt_in(
        &self,
        number: Msisdn,
        sender: Option<&SenderId>,
        who: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<OptedIn> {
        let operation = "remove an opt-out";
        let destination = number.as_u64().cast_signed();
        let done = write_tx!(self, operation, |tx, dialect| {
            let mut removed: Vec<(String, String)> = sqlx::query_as(
                "DELETE FROM suppressions WHERE destination = $1 AND ($2 = '' OR sender = $2) RETURNING sender, made_by",
            )
            .bind(destination)
            .bind(scope(sender))
            .fetch_all(&mut *tx)
            .await
            .during(operation)?;
            // A database returns rows in any order; the log tells of them in one.
            removed.sort_unstable();
            for (sender, made_by) in &removed {
                let detail = format!(
                    "{} may get texts from {} again (opt-out by {made_by})",
                    number.masked(),
                    from_whom(sender)
                );
                let event = Event { reason: Some(reason.to_owned()), ..Event::new("opted_in", who, detail) };
                append_event!(tx, event, now).during(operation)?;
            }
            let left: i64 = sqlx::query_scalar("SELECT count(*) FROM suppressions WHERE destination = $1")
                .bind(destination)
                .fetch_one(&mut *tx)
                .await
                .during(operation)?;
            OptedIn { removed: removed.len() as u64, left: left.cast_unsigned() }
        });
        Ok(done)
    }

    /// All opt-outs, by number.
    pub async fn opt_outs(&self) -> Result<Vec<OptOut>> {
        let operation = "read the opt-outs";
        let rows: Vec<OptOutRow> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT destination, sender, reason, made_by, sms_id, added_by, added_at FROM suppressions
                     ORDER BY destination, sender, made_by",
            )
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(rows
            .into_iter()
            .map(|row| OptOut {
                destination: row.destination.to_string(),
                sender: (!row.sender.is_empty()).then_some(row.sender),
                reason: row.reason,
                made_by: if row.made_by == "message" { MadeBy::Message } else { MadeBy::Operator },
                sms_id: row.sms_id.map(SmsId),
                added_by: row.added_by,
                added_at: instant(row.added_at),
            })
            .collect())
    }
}
