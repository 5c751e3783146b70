//! What happened to a campaign, or to everything, and who did it: the record of events, with what calls and rows tell.
//!
//! Nothing is written for a row that goes its ordinary way; what is told of those is counted here from their calls.

use super::row_state;
use crate::{Ledger, Result, db::read_conn, error::During, outcomes::ACCEPTED, time::instant};
use campaign::{CampaignId, RowState};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// One thing that happened, or several of a kind.
#[derive(Clone, Debug, Serialize)]
pub struct LogEntry {
    /// When; of several, the first.
    pub at: Timestamp,
    /// The last of several.
    pub until: Option<Timestamp>,
    /// Its campaign, unless it is about a whole file or about none.
    pub campaign: Option<String>,
    /// What kind, e.g. `launched`, `unknown`, `decided`.
    pub kind: String,
    /// A user's name, or the kind of process.
    pub who: String,
    /// A sentence's rest: who did what.
    pub detail: String,
    /// Why, in the words of who did it.
    pub reason: Option<String>,
    /// How many times.
    pub times: u64,
    /// How many rows it is about.
    pub rows: Option<u64>,
    /// The spreadsheet's numbers of the rows that were decided about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub row_numbers: Vec<i64>,
}

/// What happened, oldest first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Log {
    /// Told one by one, but what was met again between two deeds of people is told once.
    pub entries: Vec<LogEntry>,
    /// There are older events than these: only so many are read.
    pub older_left_out: bool,
}

/// Events that are read for one log.
const EVENTS_MAX: i64 = 50_000;

#[derive(sqlx::FromRow)]
struct Found {
    at: i64,
    kind: String,
    who: String,
    campaign: Option<String>,
    row_number: Option<i64>,
    attempt_id: Option<i64>,
    row_count: Option<i64>,
    detail: String,
    reason: Option<String>,
}

impl Ledger {
    /// What happened to the campaign of that name and who did it; to everything if none is named. `None` if there is no such
    /// campaign.
    pub async fn log(&self, campaign: Option<&str>) -> Result<Option<Log>> {
        let operation = "read what happened";
        let ids = match campaign {
            None => None,
            Some(name) => {
                let ids: Option<(i64, i64)> = read_conn!(self, operation, |conn, dialect| {
                    sqlx::query_as("SELECT id, import_id FROM campaigns WHERE name = $1")
                        .bind(name)
                        .fetch_optional(&mut *conn)
                        .await
                        .during(operation)?
                });
                let Some(ids) = ids else { return Ok(None) };
                Some(ids)
            }
        };
        let mut found: Vec<Found> = read_conn!(self, operation, |conn, dialect| {
            const COLUMNS: &str = "SELECT e.id, e.at, e.kind, e.who, c.name AS campaign, m.row_number, e.attempt_id,
                    e.row_count, e.detail, e.reason
                 FROM events e LEFT JOIN campaigns c ON c.id = e.campaign_id LEFT JOIN messages m ON m.id = e.row_id";
            let (of, import) = ids.unzip();
            let which = match ids {
                Some(_) => "WHERE e.campaign_id = $1 OR e.campaign_id IS NULL AND e.import_id = $2",
                None => "WHERE $1 IS NULL AND $2 IS NULL",
            };
            sqlx::query_as(crate::db::sql(format!("{COLUMNS} {which} ORDER BY e.id DESC LIMIT {EVENTS_MAX}")))
                .bind::<Option<i64>>(of)
                .bind::<Option<i64>>(import)
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
        });
        let older_left_out = found.len() as i64 >= EVENTS_MAX;
        found.reverse();
        let mut entries = folded(found);
        if let Some((id, _)) = ids {
            self.add_calls(CampaignId(id), &mut entries).await?;
            self.add_end(CampaignId(id), &mut entries).await?;
            entries.sort_by_key(|entry| entry.at);
        }
        Ok(Some(Log { entries, older_left_out }))
    }

    /// What the calls of a campaign tell, by their answers.
    async fn add_calls(&self, campaign: CampaignId, entries: &mut Vec<LogEntry>) -> Result<()> {
        type Calls = (String, String, i64, i64, i64, i64, i64);
        let operation = "count a campaign's calls";
        let calls: Vec<Calls> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT state, coalesce(outcome, ''), count(*), CAST(sum(recipients) AS BIGINT),
                        min(coalesce(sending_at, formed_at)), max(coalesce(ended_at, sending_at, formed_at)),
                        count(sending_at)
                 FROM attempts WHERE campaign_id = $1 GROUP BY 1, 2 ORDER BY 5",
            )
            .bind(campaign.0)
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        let mut told: BTreeMap<(&str, String), LogEntry> = BTreeMap::new();
        let mut first_sent: Option<i64> = None;
        for (state, outcome, times, rows, first, last, begun) in calls {
            if state != "released" && begun > 0 {
                first_sent = Some(first_sent.map_or(first, |before| before.min(first)));
            }
            let (kind, detail) = match (state.as_str(), outcome.as_str()) {
                ("released", why) => ("taken_back", format!("took batches back before a byte of them had left: {why}")),
                // The gateway's own words differ from call to call.
                ("refused", why) if why.starts_with(REFUSED) => {
                    ("refused", format!("{REFUSED}; `crier show` tells why"))
                }
                ("refused", why) => ("not_sent", format!("{why}: nothing was sent; queued again")),
                (_, ACCEPTED) => ("accepted", "the gateway took what was sent".to_owned()),
                _ => continue,
            };
            let (first, last, times, rows) = (instant(first), instant(last), times.unsigned_abs(), rows.unsigned_abs());
            told.entry((kind, detail.clone()))
                .and_modify(|entry| {
                    entry.at = entry.at.min(first);
                    entry.until = entry.until.max(Some(last));
                    entry.times += times;
                    entry.rows = entry.rows.map(|before| before + rows);
                })
                .or_insert_with(|| LogEntry {
                    at: first,
                    until: Some(last),
                    times,
                    rows: Some(rows),
                    ..entry(kind, "worker", detail, first)
                });
        }
        entries.extend(
            first_sent.map(|at| entry("first_sent", "worker", "the first text went out".to_owned(), instant(at))),
        );
        entries.extend(told.into_values());
        Ok(())
    }

    /// That all rows of a campaign are final, or all but the held ones; nothing while something may still happen by itself.
    async fn add_end(&self, campaign: CampaignId, entries: &mut Vec<LogEntry>) -> Result<()> {
        let operation = "read a campaign's end";
        let counts: Vec<(String, i64, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(crate::db::sql(format!(
                "SELECT m.state, count(*), max(coalesce(m.final_at, m.updated_at)) FROM chunks k
                 {then_join} told_rows m ON m.id BETWEEN k.id * 512 AND k.id * 512 + 511
                 WHERE k.campaign_id = $1 GROUP BY m.state
                 UNION ALL
                 SELECT 'queued', CAST(sum(queued + scheduled) AS BIGINT), max(packed_at) FROM packs
                 WHERE campaign_id = $1 GROUP BY campaign_id",
                then_join = dialect.then_join()
            )))
            .bind(campaign.0)
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        let mut states: BTreeMap<RowState, u64> = BTreeMap::new();
        let mut end = i64::MIN;
        for (state, rows, last) in counts {
            states.insert(row_state(&state, operation)?, rows.unsigned_abs());
            end = end.max(last);
        }
        if states.is_empty() || states.keys().any(|state| !state.is_settled()) {
            return Ok(());
        }
        let counted: Vec<String> = states.iter().map(|(state, rows)| format!("{rows} {state}")).collect();
        let (kind, words) = match states.get(&RowState::Held) {
            None => ("finished", "every row is final"),
            Some(_) => ("finished_but_held", "every row is final or waits for a decision"),
        };
        let rows = states.values().sum();
        let detail = format!("{words}: {}", counted.join(", "));
        entries.push(LogEntry { rows: Some(rows), ..entry(kind, "reconciler", detail, instant(end)) });
        Ok(())
    }
}

/// What an attempt is told as that the gateway refused as wrong.
const REFUSED: &str = "the gateway refused it (422)";

fn entry(kind: &str, who: &str, detail: String, at: Timestamp) -> LogEntry {
    LogEntry {
        at,
        until: None,
        campaign: None,
        kind: kind.to_owned(),
        who: who.to_owned(),
        detail,
        reason: None,
        times: 1,
        rows: None,
        row_numbers: Vec::new(),
    }
}

/// Events in order; those of one kind about calls or rows are one entry, as long as no person's deed stands between them.
fn folded(found: Vec<Found>) -> Vec<LogEntry> {
    type Key = (String, String, Option<String>, String, Option<String>);
    let mut entries: Vec<LogEntry> = Vec::new();
    let mut open: HashMap<Key, usize> = HashMap::new();
    for event in found {
        let about_a_call = event.attempt_id.is_some();
        let key = (event.kind, event.who, event.campaign, event.detail, event.reason);
        let at = instant(event.at);
        let rows = event.row_count.map(i64::unsigned_abs);
        match open.get(&key) {
            Some(place) if about_a_call || event.row_number.is_some() => {
                let entry = &mut entries[*place];
                entry.until = Some(at);
                entry.times += 1;
                entry.rows = entry.rows.zip(rows).map(|(before, rows)| before + rows);
                entry.row_numbers.extend(event.row_number);
            }
            _ => {
                if !about_a_call {
                    open.clear();
                }
                open.insert(key.clone(), entries.len());
                let (kind, who, campaign, detail, reason) = key;
                let row_numbers = event.row_number.into_iter().collect();
                entries.push(LogEntry {
                    at,
                    until: None,
                    campaign,
                    kind,
                    who,
                    detail,
                    reason,
                    times: 1,
                    rows,
                    row_numbers,
                });
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: i64, kind: &str, attempt: Option<i64>, row: Option<i64>) -> Found {
        Found {
            at,
            kind: kind.to_owned(),
            who: "someone".to_owned(),
            campaign: Some("spring".to_owned()),
            row_number: row,
            attempt_id: attempt,
            row_count: Some(3),
            detail: kind.to_owned(),
            reason: None,
        }
    }

    #[test]
    fn what_is_met_again_is_one_entry_until_a_person_acts() {
        let entries = folded(vec![
            event(1, "unknown", Some(1), None),
            event(2, "held", Some(1), None),
            event(3, "unknown", Some(2), None),
            event(4, "decided", None, Some(7)),
            event(4, "decided", None, Some(9)),
            event(5, "unknown", Some(3), None),
        ]);
        let told: Vec<_> = entries.iter().map(|entry| (entry.kind.as_str(), entry.times, entry.rows)).collect();
        assert_eq!(
            told,
            [("unknown", 2, Some(6)), ("held", 1, Some(3)), ("decided", 2, Some(6)), ("unknown", 1, Some(3))]
        );
        assert_eq!((entries[0].until, &entries[2].row_numbers), (Some(instant(3)), &vec![7, 9]));
    }
}
