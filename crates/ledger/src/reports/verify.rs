//! The proof that every row is in exactly one place.

use super::row_state;
use crate::{
    Ledger, Result,
    claims::LIVE,
    db::{Dialect, read_conn, sql},
    error::During,
};
use campaign::RowState;
use serde::Serialize;
use std::collections::BTreeMap;

/// One thing that must hold, and whether it does.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What must hold.
    pub check: String,
    /// It does.
    pub holds: bool,
    /// What was counted.
    pub found: String,
}

/// Counts of exceptions to what must hold at every commit, with the statement that counts them. `{row_ids}` stands for
/// the row ids of the attempt `a` as a subquery of one column, `id`; `{live}` for what makes the row `o` a live one; `{then_join}` for
/// [`Dialect::then_join`].
const EXCEPTIONS: [(&str, &str); 9] = [
    (
        "every row belongs to a chunk of its campaign",
        "SELECT count(*) FROM all_rows m LEFT JOIN chunks k ON k.id = m.id / 512
         WHERE k.id IS NULL OR k.campaign_id <> m.campaign_id",
    ),
    (
        "no line of a file stands in the ledger twice",
        "SELECT count(*) FROM (SELECT 1 FROM all_rows m {then_join} chunks k ON k.id = m.id / 512
         GROUP BY k.import_id, m.row_number HAVING count(*) > 1) AS twice",
    ),
    (
        "every row that is being sent or looked for has an open attempt",
        "SELECT count(*) FROM messages m LEFT JOIN attempts a ON a.id = m.attempt_id
         WHERE m.state = 'attempted'
         AND (a.id IS NULL OR a.state NOT IN ('formed', 'sending', 'accepted', 'unknown'))",
    ),
    (
        "every row of an attempt that is being made says so",
        "SELECT count(*) FROM attempts a JOIN messages m ON m.id IN ({row_ids})
         WHERE a.state IN ('formed', 'sending') AND (m.attempt_id IS NULL OR m.attempt_id <> a.id OR m.state <> 'attempted')",
    ),
    (
        "no sms_id of the gateway is claimed by two rows",
        "SELECT count(sms_id) - count(DISTINCT sms_id) FROM messages",
    ),
    (
        "no number has two open attempts from one sender",
        "SELECT count(*) FROM (SELECT 1 FROM messages o WHERE {live}
         GROUP BY sender, destination HAVING count(*) > 1) AS twice",
    ),
    (
        "no row was sent again unless that was decided",
        "SELECT count(*) FROM (SELECT r.id AS id FROM attempts a JOIN {rows_of_a} ON 1 = 1
             WHERE a.state IN ('sending', 'accepted', 'unknown', 'settled') GROUP BY r.id HAVING count(*) > 1) AS twice
         JOIN messages m ON m.id = twice.id WHERE m.resends = 0",
    ),
    (
        "every pack holds as many rows as it says",
        "SELECT count(*) FROM packs p
         WHERE p.queued <> (SELECT count(*) FROM packed_rows m WHERE m.chunk_id = p.chunk_id AND m.state = 'queued')
            OR p.scheduled <> (SELECT count(*) FROM packed_rows m WHERE m.chunk_id = p.chunk_id AND m.state = 'scheduled')",
    ),
    (
        "no row waits in a chunk that is done",
        "SELECT count(*) FROM all_rows m {then_join} chunks k ON k.id = m.id / 512
         WHERE k.state = 'done' AND m.state IN ('scheduled', 'queued')",
    ),
];

impl Ledger {
    /// Checks that the rows of every file balance and that chunks, rows and attempts agree. Reads the whole ledger.
    pub async fn verify(&self) -> Result<Vec<Check>> {
        let operation = "verify the ledger";
        let mut checks = self.balances().await?;
        for (check, statement) in EXCEPTIONS {
            let exceptions: i64 = read_conn!(self, operation, |conn, dialect| {
                let (ids, rows) = match dialect {
                    Dialect::Sqlite => (
                        "SELECT value FROM json_each(a.row_ids)",
                        "(SELECT a2.id AS attempt_id, value AS id FROM attempts a2, json_each(a2.row_ids)) r",
                    ),
                    Dialect::Postgres => (
                        "SELECT value::bigint FROM json_array_elements_text(a.row_ids::json)",
                        "LATERAL (SELECT value::bigint AS id FROM json_array_elements_text(a.row_ids::json)) r",
                    ),
                };
                let joined = match dialect {
                    Dialect::Sqlite => statement.replace("ON 1 = 1", "ON r.attempt_id = a.id"),
                    Dialect::Postgres => statement.to_owned(),
                };
                sqlx::query_scalar(sql(joined
                    .replace("{row_ids}", ids)
                    .replace("{then_join}", dialect.then_join())
                    .replace("{rows_of_a}", rows)
                    .replace("{live}", LIVE)))
                .fetch_one(&mut *conn)
                .await
                .during(operation)?
            });
            let found = if exceptions == 0 { "no exception".to_owned() } else { format!("{exceptions} exceptions") };
            checks.push(Check { check: check.to_owned(), holds: exceptions == 0, found });
        }
        Ok(checks)
    }

    /// Rows in each file against the sum of their states in the ledger.
    async fn balances(&self) -> Result<Vec<Check>> {
        let operation = "count the rows of each file";
        let (imports, counts) = read_conn!(self, operation, |conn, dialect| {
            let imports: Vec<(i64, String, i64, i64, String)> =
                sqlx::query_as("SELECT id, file_name, launch, rows_in_file, state FROM imports ORDER BY id")
                    .fetch_all(&mut *conn)
                    .await
                    .during(operation)?;
            let counts: Vec<(i64, String, i64)> =
                sqlx::query_as("SELECT id / 8589934592, state, count(*) FROM all_rows GROUP BY 1, 2")
                    .fetch_all(&mut *conn)
                    .await
                    .during(operation)?;
            (imports, counts)
        });
        let mut by_import: BTreeMap<i64, BTreeMap<RowState, i64>> = BTreeMap::new();
        for (import, state, rows) in counts {
            by_import.entry(import).or_default().insert(row_state(&state, operation)?, rows);
        }
        let balance = |(id, file_name, launch, rows_in_file, state): (i64, String, i64, i64, String)| {
            let states = by_import.remove(&id).unwrap_or_default();
            let sum: i64 = states.values().sum();
            let loading = state == "loading";
            let launch = if launch == 1 { String::new() } else { format!(" (launch {launch})") };
            let words: Vec<_> = states.iter().map(|(state, rows)| format!("{rows} {state}")).collect();
            let words = if words.is_empty() { "no rows".to_owned() } else { words.join(" + ") };
            Check {
                check: format!("{file_name}{launch}: the rows balance"),
                // A file that is still being loaded has not all its rows yet; it must not have too many.
                holds: if loading { sum <= rows_in_file } else { sum == rows_in_file },
                found: if loading {
                    format!("still loading: {sum} of {rows_in_file} rows so far ({words})")
                } else {
                    format!(
                        "{rows_in_file} in the file {} {sum} = {words}",
                        if sum == rows_in_file { "=" } else { "≠" }
                    )
                },
            }
        };
        Ok(imports.into_iter().map(balance).collect())
    }
}
