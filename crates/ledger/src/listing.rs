//! What the gateway's list says about our rows.

use crate::{
    Event, Ledger, Result,
    claims::LIVE,
    db::{Dialect, sql, write_tx},
    error::During,
    events::append_event,
    feed::{json_ids, ms_of},
    listing::{decided::explain_by_decided, unsent::explain_by_unsent},
    time::{instant, ms},
    transitions::unblock_chunks,
};
use campaign::{
    AttemptId, CampaignId, ChunkId, Msisdn, OwnerId, RowId, SenderId, SmsId,
    matching::{Listed, Open, match_listed},
};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

mod decided;
mod unsent;

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
}

/// One line of the gateway's list: a text of type 1 from one of our senders.
#[derive(Clone)]
pub struct ListedText {
    /// What identifies and matches it.
    pub text: Listed,
    /// The destination as listed, masked.
    pub destination: String,
    /// Its status; `None` for a status that is none of the known ones, which is never taken for failed.
    pub delivery: Option<Delivery>,
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

/// The reason of a row that the gateway calls failed.
const FAILED: &str = "the gateway reports that it could not be sent";

/// Rows of four numbers (id, sms_id, at, status) from the JSON that is bound as parameter 1.
fn found_rows(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => {
            "SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS sms_id,
                    json_extract(value, '$[2]') AS at, json_extract(value, '$[3]') AS status FROM json_each($1)"
        }
        Dialect::Postgres => {
            "SELECT (value->>0)::bigint AS id, (value->>1)::bigint AS sms_id, (value->>2)::bigint AS at,
                    (value->>3)::bigint AS status
             FROM json_array_elements($1::json)"
        }
    }
}

/// Since when a row could have been sent.
const DUE: &str = "CASE WHEN scheduled_for > queued_at THEN scheduled_for ELSE coalesce(queued_at, updated_at) END";

/// A pending text may vanish from the list before the reading of its window that would find it final: whatever is pending for
/// so long is asked for by itself.
const ASKED_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// A row as listed texts are matched with it, if its number can exist. `since`: before this it was not sent.
fn open_row(row: i64, attempt: i64, number: i64, text: String, since: i64, skew: SignedDuration) -> Option<Open> {
    Some(Open {
        row: RowId(row),
        attempt: AttemptId(attempt),
        destination: Msisdn::from_digits(number.cast_unsigned())?,
        text,
        earliest: (instant(since) + skew).as_second() - campaign::sweep::SKEW_MARGIN,
    })
}

impl Ledger {
    /// Applies a complete reading of a window: known texts get their status, unknown ones are matched with open rows, the
    /// rest is unexplained. `skew` is the gateway's clock minus the ledger's.
    pub async fn apply_listing(
        &self,
        sender: &SenderId,
        listed: &[ListedText],
        skew: SignedDuration,
        now: Timestamp,
    ) -> Result<Applied> {
        self.apply(sender, listed, skew, None, None, now).await
    }

    /// Like [`Ledger::apply_listing`], for a reading that no window follows: its pending rows are asked for one by one from
    /// now on. In one commit: a crash between two would leave rows that nothing asks for.
    pub async fn apply_look(
        &self,
        sender: &SenderId,
        listed: &[ListedText],
        skew: SignedDuration,
        now: Timestamp,
    ) -> Result<Applied> {
        self.apply(sender, listed, skew, Some(now), None, now).await
    }

    /// Like [`Ledger::apply_look`], in a ledger that was restored: what no open row explains may be that of a row which was
    /// sent after the backup and is queued here. `owner`: who reads.
    pub async fn apply_restored(
        &self,
        sender: &SenderId,
        listed: &[ListedText],
        skew: SignedDuration,
        owner: OwnerId,
        now: Timestamp,
    ) -> Result<Applied> {
        self.apply(sender, listed, skew, Some(now), Some(owner), now).await
    }

    async fn apply(
        &self,
        sender: &SenderId,
        listed: &[ListedText],
        skew: SignedDuration,
        ask_at: Option<Timestamp>,
        restored_by: Option<OwnerId>,
        now: Timestamp,
    ) -> Result<Applied> {
        let operation = "apply a reading of the gateway's list";
        let mut applied = Applied::default();
        for listed in listed.chunks(2_000) {
            let mut ended = Vec::new();
            let some = write_tx!(self, operation, |tx, dialect| {
                let known: Vec<(i64, i64)> =
                    sqlx::query_as(sql(format!("SELECT sms_id, id FROM messages WHERE sms_id IN {}", dialect.ids(1))))
                        .bind(json_ids(listed.iter().map(|text| text.text.sms_id.0)))
                        .fetch_all(&mut *tx)
                        .await
                        .during(operation)?;
                let known: HashMap<SmsId, RowId> =
                    known.into_iter().map(|(sms_id, row)| (SmsId(sms_id), RowId(row))).collect();
                let fresh: Vec<Listed> = listed
                    .iter()
                    .filter(|text| {
                        #[cfg(feature = "simulated")]
                        if campaign::mutant::Mutant::SmsIdClaimedTwice.is_on() {
                            return true;
                        }
                        !known.contains_key(&text.text.sms_id)
                    })
                    .map(|text| text.text.clone())
                    .collect();
                let numbers: BTreeSet<i64> =
                    fresh.iter().filter_map(|text| Some(text.destination?.as_u64().cast_signed())).collect();
                let open: Vec<(i64, i64, i64, String, i64, String)> = sqlx::query_as(sql(format!(
                    "SELECT o.id, o.attempt_id, o.destination, t.body, coalesce(a.sending_at, a.formed_at), o.state
                     FROM messages o JOIN texts t ON t.id = o.text_id JOIN attempts a ON a.id = o.attempt_id
                     WHERE o.sender = $2 AND o.destination IN {} AND {LIVE}",
                    dialect.ids(1)
                )))
                .bind(json_ids(numbers))
                .bind(sender.as_str())
                .fetch_all(&mut *tx)
                .await
                .during(operation)?;
                // A text that is listed before its answer came is left for the next reading.
                let being_sent: HashSet<RowId> =
                    open.iter().filter(|row| row.5 == "sending").map(|row| RowId(row.0)).collect();
                let held: HashSet<RowId> = open.iter().filter(|row| row.5 == "held").map(|row| RowId(row.0)).collect();
                let open: Vec<Open> = open
                    .into_iter()
                    .filter_map(|(row, attempt, number, text, sent, _)| {
                        open_row(row, attempt, number, text, sent, skew)
                    })
                    .collect();
                let mut matches = match_listed(&fresh, &open);
                matches.found.retain(|(row, _)| !being_sent.contains(row));
                if matches.found.iter().any(|(row, _)| held.contains(row)) {
                    unblock_chunks!(tx, operation);
                }
                if !matches.unexplained.is_empty() {
                    explain_by_decided!(tx, dialect, sender, listed, matches, skew, now, operation);
                }
                let restored = match restored_by {
                    Some(owner) if !matches.unexplained.is_empty() => {
                        explain_by_unsent!(tx, dialect, sender, listed, matches, skew, owner, now, operation)
                    }
                    Some(_) | None => Vec::new(),
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
                let by_id: HashMap<SmsId, &ListedText> = listed.iter().map(|text| (text.text.sms_id, text)).collect();

                if !matches.found.is_empty() {
                    let found: Vec<(i64, i64, i64, i64)> = matches
                        .found
                        .iter()
                        .map(|(row, id)| {
                            let text = by_id[id];
                            let status = match text.delivery {
                                Some(Delivery::Sent) => 1,
                                Some(Delivery::Failed) => 2,
                                Some(Delivery::Pending) | None => 0,
                            };
                            (row.0, id.0, (text.text.time * 1000) - ms_of(skew), status)
                        })
                        .collect();
                    let found = serde_json::to_string(&found).expect("numbers are JSON");
                    // A row claims an id once: the unique index refuses a second claim, the guard a second id. Most are
                    // final by now: that is written down with the id.
                    let states: Vec<(String, i64)> = sqlx::query_as(sql(format!(
                        "UPDATE messages SET sms_id = f.sms_id, id_source = 'list',
                            state = CASE f.status WHEN 1 THEN 'sent' WHEN 2 THEN 'failed' ELSE 'accepted' END,
                            gateway_status = CASE f.status WHEN 1 THEN 'sent' WHEN 2 THEN 'failed' ELSE 'pending' END,
                            reason = CASE f.status WHEN 2 THEN '{FAILED}' END,
                            accepted_at = coalesce(accepted_at, f.at), found_at = $2, checked_at = $2, updated_at = $2,
                            final_at = CASE WHEN f.status > 0 THEN $2 END,
                            check_at = CASE WHEN f.status > 0 THEN NULL ELSE coalesce(check_at, $3) END
                         FROM ({}) AS f
                         WHERE messages.id = f.id AND messages.sms_id IS NULL
                           AND messages.state IN ('unknown', 'held', 'accepted')
                         RETURNING messages.state, {DUE}",
                        found_rows(dialect)
                    )))
                    .bind(found)
                    .bind(ms(now))
                    .bind(ms(ask_at.unwrap_or(now + ASKED_AFTER)))
                    .fetch_all(&mut *tx)
                    .await
                    .during(operation)?;
                    for (state, due) in states {
                        match state.as_str() {
                            "sent" => ended.push((Delivery::Sent, due)),
                            "failed" => ended.push((Delivery::Failed, due)),
                            _ => applied.pending += 1,
                        }
                    }
                }
                // Rows of a restored ledger have their id since a moment ago; their status is learned as that of the others.
                let known: HashMap<SmsId, RowId> = known.into_iter().chain(restored).collect();
                for (delivery, state) in [(Delivery::Sent, "sent"), (Delivery::Failed, "failed")] {
                    let ids: Vec<i64> = known
                        .iter()
                        .filter(|(sms_id, _)| by_id[sms_id].delivery == Some(delivery))
                        .map(|(_, row)| row.0)
                        .collect();
                    if ids.is_empty() {
                        continue;
                    }
                    let due: Vec<i64> = sqlx::query_scalar(sql(format!(
                        "UPDATE messages SET state = $2, gateway_status = $2, reason = $4, checked_at = $3,
                            final_at = $3, check_at = NULL, updated_at = $3
                         WHERE id IN {} AND state = 'accepted'
                         RETURNING {DUE}",
                        dialect.ids(1)
                    )))
                    .bind(json_ids(ids))
                    .bind(state)
                    .bind(ms(now))
                    .bind((delivery == Delivery::Failed).then_some(FAILED))
                    .fetch_all(&mut *tx)
                    .await
                    .during(operation)?;
                    ended.extend(due.into_iter().map(|due| (delivery, due)));
                }
                let pending: Vec<i64> = known
                    .iter()
                    .filter(|(sms_id, _)| !matches!(by_id[sms_id].delivery, Some(Delivery::Sent | Delivery::Failed)))
                    .map(|(_, row)| row.0)
                    .collect();
                if !pending.is_empty() {
                    applied.pending += sqlx::query(sql(format!(
                        "UPDATE messages SET gateway_status = 'pending', checked_at = $2, updated_at = $2,
                            check_at = CASE WHEN check_at <= $3 THEN check_at ELSE $3 END
                         WHERE id IN {} AND state = 'accepted'",
                        dialect.ids(1)
                    )))
                    .bind(json_ids(pending))
                    .bind(ms(now))
                    .bind(ms(ask_at.unwrap_or(now + ASKED_AFTER)))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?
                    .rows_affected();
                }
                for id in &matches.unexplained {
                    let text = by_id[id];
                    let new = sqlx::query(
                        "INSERT INTO unexplained (sms_id, sender, destination, listed_time, seen_at)
                         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (sms_id) DO NOTHING",
                    )
                    .bind(id.0)
                    .bind(sender.as_str())
                    .bind(&text.destination)
                    .bind(text.text.time.to_string())
                    .bind(ms(now))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?
                    .rows_affected();
                    applied.unexplained += new;
                    if new == 1 {
                        let detail = format!(
                            "the gateway lists text {id} from {sender} to {}, which nothing here explains",
                            text.destination
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
            applied.finals += ended.len() as u64;
            for (delivery, due) in ended {
                telemetry::rows_became(if delivery == Delivery::Sent { "sent" } else { "failed" }, 1);
                if delivery == Delivery::Sent {
                    telemetry::row_sent_after(Duration::from_millis((ms(now) - due).max(0).unsigned_abs()));
                }
            }
            telemetry::rows_became("accepted", some.found);
            applied.found += some.found;
            applied.pending += some.pending;
            applied.unexplained += some.unexplained;
        }
        Ok(applied)
    }
}
