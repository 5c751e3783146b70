//! What the gateway's list says about our rows.

use crate::{
    Event, Ledger, Result,
    claims::{LIVE, text_bodies},
    db::{Dialect, quick_tx, sql},
    error::During,
    events::append_event,
    feed::{json_ids, json_pairs, ms_of},
    listing::{decided::explain_by_decided, unsent::explain_by_unsent},
    packs::unpack,
    time::{instant, ms},
    transitions::unblock_chunks,
};
use campaign::{
    AttemptId, CampaignId, ChunkId, Msisdn, OwnerId, RowId, SenderId, SmsId,
    matching::{Listed, Open, match_listed},
};
use jiff::{SignedDuration, Timestamp};
use sqlx::types::Json;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::AddAssign,
    sync::Arc,
    time::Duration,
};

mod decided;
mod texts;
mod unsent;

pub use texts::Listing;

/// What the gateway says of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Its status 0.
    Pending,
    /// Its status 1. It never says *delivered*.
    Sent,
    /// Its status 2.
    Failed,
}

impl Delivery {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Failed => "failed",
        }
    }

    /// The state of a row whose text has this status.
    fn state(self) -> &'static str {
        match self {
            Self::Pending => "accepted",
            Self::Sent => "sent",
            Self::Failed => "failed",
        }
    }

    fn is_final(self) -> bool {
        self != Self::Pending
    }

    /// The reason of a row whose text has this status.
    fn reason(self) -> Option<&'static str> {
        (self == Self::Failed).then_some("the gateway reports that it could not be sent")
    }
}

/// One line of the gateway's list: a text of type 1 from one of our senders.
#[derive(Clone)]
pub struct ListedText {
    /// What identifies and matches it.
    pub text: Listed,
    /// Its status; `None` for a status that is none of the known ones, which is never taken for failed.
    pub delivery: Option<Delivery>,
}

impl ListedText {
    /// To whom, masked.
    fn to_whom(&self) -> String {
        self.text
            .destination
            .map_or_else(|| "a number that can't exist".to_owned(), |number| number.masked().to_string())
    }

    /// What is written down of it: a status that nobody knows is looked at again.
    fn status(&self) -> Delivery {
        self.delivery.unwrap_or(Delivery::Pending)
    }
}

/// What a listing changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows that got their `sms_id`.
    pub found: u64,
    /// Listed texts of ours that are pending.
    pub pending: u64,
    /// Rows that became final.
    pub finals: u64,
    /// Listed texts that nothing explains, new ones only.
    pub unexplained: u64,
}

impl AddAssign for Applied {
    fn add_assign(&mut self, other: Self) {
        let Self { found, pending, finals, unexplained } = other;
        self.found += found;
        self.pending += pending;
        self.finals += finals;
        self.unexplained += unexplained;
    }
}

/// Since when a row could have been sent.
const DUE: &str = "CASE WHEN scheduled_for > queued_at THEN scheduled_for ELSE coalesce(queued_at, updated_at) END";

/// A pending text may vanish from the list before the reading of its window that would find it final: whatever is pending for
/// so long is asked for by itself.
const ASKED_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// Listed texts that are applied in one commit. The windows of a simulation hold few: each page is a part there.
pub const TEXTS_A_COMMIT: usize = if cfg!(feature = "simulated") { 10 } else { 2_000 };

/// A row of ours to which a listed text may belong.
#[derive(serde::Deserialize)]
struct LiveRow {
    id: i64,
    attempt: i64,
    number: i64,
    text: i64,
    sent_at: i64,
    state: String,
    accepted_at: Option<i64>,
    due: i64,
}

/// What becomes of listed texts that no open row explains.
#[derive(Clone, Copy)]
enum Unexplained {
    /// They are somebody else's.
    Told,
    /// They are left for another time.
    Left,
    /// Queued rows may explain them: the ledger was restored. Who reads.
    MayBeUnsent(OwnerId),
}

/// A row that has its `sms_id`.
#[derive(serde::Deserialize)]
struct KnownRow {
    sms_id: i64,
    id: i64,
    state: String,
    due: i64,
}

/// The live rows of sender `$2` to the numbers in `$1`, each as a [`LiveRow`].
fn live_rows(dialect: Dialect) -> String {
    let from = format!(
        "messages o JOIN attempts a ON a.id = o.attempt_id WHERE o.sender = $2 AND o.destination {} AND {LIVE}",
        dialect.ids(1)
    );
    let columns = "o.id, o.attempt_id, o.destination, o.text_id, coalesce(a.sending_at, a.formed_at),
        CASE WHEN o.state <> 'attempted' THEN o.state WHEN a.state = 'formed' THEN 'sending' ELSE a.state END,
        CASE WHEN a.outcome = 'accepted' THEN a.ended_at ELSE o.accepted_at END";
    dialect.packed(&format!("{columns}, {DUE}"), &from)
}

/// The rows that have one of the ids in `$1`, each as a [`KnownRow`].
fn known_rows(dialect: Dialect) -> String {
    dialect.packed(&format!("sms_id, id, state, {DUE}"), &format!("messages WHERE sms_id {}", dialect.ids(1)))
}

/// Writes down what the list says of rows that it shows first: `$1` their ids as pairs, `$2` the state, `$3` the gateway's
/// word, `$4` the reason, `$5` now, `$6` since when they are final, `$7` when pending ones are asked for, `$8` the attempts by
/// which they were sent.
///
/// A row claims an id once: the unique index refuses a second claim, the guard a second id. One that was queued again
/// meanwhile is of none of these attempts. Most are final by now: that is written down with the id. The guard is a CASE because
/// Postgres, as long as it has no statistics of a new table, takes three conditions for true of one row at most, and then
/// compares all rows with all pairs.
fn found_first(dialect: Dialect) -> String {
    format!(
        "{} messages SET sms_id = pairs.key, id_source = 'list', live = NULL, held = NULL, state = $2, gateway_status = $3,
            reason = $4, found_at = $5, checked_at = $5, updated_at = $5, final_at = $6,
            check_at = CASE WHEN $6 IS NULL THEN coalesce(check_at, $7) END
         FROM {}
         WHERE messages.id = pairs.value
           AND CASE WHEN messages.sms_id IS NULL THEN messages.state IN ('attempted', 'held') AND messages.attempt_id {} ELSE FALSE END",
        dialect.update(),
        dialect.pairs(),
        dialect.ids(8)
    )
}

/// Like [`found_first`], of rows that it has shown before: `$1` is their own ids.
fn found_again(dialect: Dialect) -> String {
    format!(
        "{} messages SET state = $2, gateway_status = $3, reason = $4, checked_at = $5, updated_at = $5, final_at = $6,
            check_at = CASE WHEN $6 IS NOT NULL THEN NULL WHEN check_at <= $7 THEN check_at ELSE $7 END
         WHERE id {} AND state = 'accepted'",
        dialect.update(),
        dialect.ids(1)
    )
}

/// A row as listed texts are matched with it, if its number can exist. `since`: before this it was not sent.
fn open_row(row: i64, attempt: i64, number: i64, text: Arc<str>, since: i64, skew: SignedDuration) -> Option<Open> {
    Some(Open {
        row: RowId(row),
        attempt: AttemptId(attempt),
        destination: Msisdn::from_digits(number.cast_unsigned())?,
        text,
        earliest: (instant(since) + skew).as_second() - campaign::sweep::SKEW_MARGIN,
    })
}

impl Ledger {
    /// Applies texts that a window lists: known ones get their status, unknown ones are matched with open rows, the rest is
    /// unexplained. Each is true by itself: they may be a part of the window, and of one that moves while it is read. `skew` is
    /// the gateway's clock minus the ledger's.
    pub async fn apply_listing(
        &self,
        sender: &SenderId,
        listed: &Listing,
        skew: SignedDuration,
        now: Timestamp,
    ) -> Result<Applied> {
        self.apply(sender, listed, skew, None, Unexplained::Told, now).await
    }

    /// Like [`Ledger::apply_listing`], for a reading that no window follows: its pending rows are asked for one by one from
    /// now on. In one commit: a crash between two would leave rows that nothing asks for.
    pub async fn apply_look(
        &self,
        sender: &SenderId,
        listed: &Listing,
        skew: SignedDuration,
        now: Timestamp,
    ) -> Result<Applied> {
        self.apply(sender, listed, skew, Some(now), Unexplained::Told, now).await
    }

    /// Like [`Ledger::apply_look`], in a ledger that was restored: what no open row explains may be that of a row which was
    /// sent after the backup and is queued here. `owner`: who reads.
    pub async fn apply_restored(
        &self,
        sender: &SenderId,
        listed: &Listing,
        skew: SignedDuration,
        owner: OwnerId,
        now: Timestamp,
    ) -> Result<Applied> {
        // What open rows explain comes first: a row that can't be told from one that was sent could not be held while that one still
        // stood open, and would be sent.
        let open = self.apply(sender, listed, skew, Some(now), Unexplained::Left, now).await?;
        let applied = self.apply(sender, listed, skew, Some(now), Unexplained::MayBeUnsent(owner), now).await?;
        Ok(Applied { found: open.found + applied.found, finals: open.finals + applied.finals, ..applied })
    }

    async fn apply(
        &self,
        sender: &SenderId,
        listed: &Listing,
        skew: SignedDuration,
        ask_at: Option<Timestamp>,
        unexplained: Unexplained,
        now: Timestamp,
    ) -> Result<Applied> {
        let operation = "apply a reading of the gateway's list";
        let look_at = ms(ask_at.unwrap_or(now + ASKED_AFTER));
        let mut applied = Applied::default();
        for listed in listed.pieces(TEXTS_A_COMMIT) {
            let mut became: Vec<(Delivery, u64, Vec<i64>)> = Vec::new();
            let some = quick_tx!(self, operation, |tx, dialect| {
                let Json(known): Json<Vec<KnownRow>> = sqlx::query_scalar(sql(known_rows(dialect)))
                    .bind(json_ids(listed.iter().map(|text| text.text.sms_id.0)))
                    .fetch_one(&mut *tx)
                    .await
                    .during(operation)?;
                let known_ids: HashSet<SmsId> = known.iter().map(|row| SmsId(row.sms_id)).collect();
                let fresh: Vec<Listed> = listed
                    .iter()
                    .filter(|text| {
                        #[cfg(feature = "simulated")]
                        if campaign::mutant::Mutant::SmsIdClaimedTwice.is_on() {
                            return true;
                        }
                        !known_ids.contains(&text.text.sms_id)
                    })
                    .map(|text| text.text.clone())
                    .collect();
                let numbers: BTreeSet<i64> =
                    fresh.iter().filter_map(|text| Some(text.destination?.as_u64().cast_signed())).collect();
                let Json(live): Json<Vec<LiveRow>> = sqlx::query_scalar(sql(live_rows(dialect)))
                    .bind(json_ids(numbers))
                    .bind(sender.as_str())
                    .fetch_one(&mut *tx)
                    .await
                    .during(operation)?;
                let texts = text_bodies!(tx, dialect, live.iter().map(|row| row.text), operation);
                let open: Vec<Open> = live
                    .iter()
                    .filter_map(|row| {
                        let text = texts.get(&row.text)?.clone();
                        open_row(row.id, row.attempt, row.number, text, row.sent_at, skew)
                    })
                    .collect();
                let live: HashMap<RowId, LiveRow> = live.into_iter().map(|row| (RowId(row.id), row)).collect();
                let mut matches = match_listed(&fresh, &open);
                // A text that is listed before its answer came is left for the next reading.
                matches.found.retain(|(row, _)| live[row].state != "sending");
                if matches!(unexplained, Unexplained::Left) {
                    matches.unexplained.clear();
                }
                if matches.found.iter().any(|(row, _)| live[row].state == "held") {
                    unblock_chunks!(tx, operation);
                }
                if !matches.unexplained.is_empty() {
                    explain_by_decided!(tx, dialect, sender, listed, matches, skew, now, operation);
                }
                let restored = match unexplained {
                    Unexplained::MayBeUnsent(owner) if !matches.unexplained.is_empty() => {
                        explain_by_unsent!(tx, dialect, sender, listed, matches, skew, owner, now, operation)
                    }
                    Unexplained::MayBeUnsent(_) | Unexplained::Told | Unexplained::Left => Vec::new(),
                };
                if !restored.is_empty() {
                    // Whoever else reads the list back may have read it before this was listed.
                    sqlx::query("UPDATE quarantine SET read_at = NULL WHERE since IS NOT NULL")
                        .execute(&mut *tx)
                        .await
                        .during(operation)?;
                }
                let found = matches.found.len() + restored.len();
                let mut applied = Applied { found: found as u64, ..Applied::default() };
                // Rows of a restored ledger have their id since a moment ago; their status is learned as that of the others.
                let known: Vec<KnownRow> = known.into_iter().chain(restored).collect();
                let by_id: HashMap<SmsId, &ListedText> = listed.iter().map(|text| (text.text.sms_id, text)).collect();

                let attempts: BTreeSet<i64> = matches.found.iter().map(|(row, _)| live[row].attempt).collect();
                let attempts = json_ids(attempts);
                // Of a row whose answer never came the list says when the gateway took it.
                let taken: Vec<(i64, i64)> = matches
                    .found
                    .iter()
                    .filter(|(row, _)| live[row].accepted_at.is_none())
                    .map(|(row, id)| (row.0, by_id[id].text.time * 1000 - ms_of(skew)))
                    .collect();
                if !taken.is_empty() {
                    sqlx::query(sql(format!(
                        "UPDATE messages SET accepted_at = pairs.value FROM {}
                         WHERE messages.id = pairs.key AND messages.sms_id IS NULL AND messages.accepted_at IS NULL
                           AND messages.state IN ('attempted', 'held') AND messages.attempt_id {}",
                        dialect.pairs(),
                        dialect.ids(2)
                    )))
                    .bind(json_pairs(taken))
                    .bind(&attempts)
                    .execute(&mut *tx)
                    .await
                    .during(operation)?;
                }
                for status in [Delivery::Sent, Delivery::Failed, Delivery::Pending] {
                    let new: Vec<_> = matches.found.iter().filter(|(_, id)| by_id[id].status() == status).collect();
                    let again: Vec<_> = known
                        .iter()
                        .filter(|row| by_id[&SmsId(row.sms_id)].status() == status && row.state == "accepted")
                        .collect();
                    let new_due: Vec<i64> = new.iter().map(|(row, _)| live[row].due).collect();
                    let again_due: Vec<i64> = again.iter().map(|row| row.due).collect();
                    for (change, rows, of, due) in [
                        (
                            found_first(dialect),
                            json_pairs(new.iter().map(|(row, id)| (id.0, row.0))),
                            Some(&attempts),
                            new_due,
                        ),
                        (found_again(dialect), json_ids(again.iter().map(|row| row.id)), None, again_due),
                    ] {
                        if due.is_empty() {
                            continue;
                        }
                        let change = sqlx::query(sql(change));
                        let change = change
                            .bind(rows)
                            .bind(status.state())
                            .bind(status.name())
                            .bind(status.reason())
                            .bind(ms(now))
                            .bind(status.is_final().then_some(ms(now)))
                            .bind(look_at);
                        let change = if let Some(attempts) = of { change.bind(attempts) } else { change };
                        let changed = change.execute(&mut *tx).await.during(operation)?.rows_affected();
                        became.push((status, changed, due));
                    }
                }
                for id in &matches.unexplained {
                    let text = by_id[id];
                    let to_whom = text.to_whom();
                    let new = sqlx::query(
                        "INSERT INTO unexplained (sms_id, sender, destination, listed_time, seen_at)
                         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (sms_id) DO NOTHING",
                    )
                    .bind(id.0)
                    .bind(sender.as_str())
                    .bind(&to_whom)
                    .bind(text.text.time.to_string())
                    .bind(ms(now))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?
                    .rows_affected();
                    applied.unexplained += new;
                    if new == 1 {
                        let detail = format!(
                            "the gateway lists text {id} from {sender} to {to_whom}, which nothing here explains"
                        );
                        append_event!(tx, Event::new("unexplained", "reconciler", detail), now).during(operation)?;
                    }
                }
                if applied.found > 0 {
                    sqlx::query(
                        "INSERT INTO learned (name, value, at) VALUES ('recipients_listed', $1, $2)
                         ON CONFLICT (name) DO UPDATE SET value = learned.value + excluded.value, at = excluded.at",
                    )
                    .bind(i64::try_from(applied.found).unwrap_or(0))
                    .bind(ms(now))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?;
                }
                applied
            });
            for (status, changed, due) in became {
                if !status.is_final() {
                    applied.pending += changed;
                    continue;
                }
                applied.finals += changed;
                telemetry::rows_became(status.state(), changed);
                if status == Delivery::Sent {
                    let waited = |due: i64| Duration::from_millis((ms(now) - due).max(0).unsigned_abs());
                    telemetry::rows_sent_after(due.into_iter().map(waited));
                }
            }
            telemetry::rows_became("accepted", some.found);
            applied += some;
        }
        Ok(applied)
    }
}
