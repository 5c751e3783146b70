//! What must hold at every commit, whatever happened before it.

use crate::Bench;
use campaign::RowState;
use sqlx::AssertSqlSafe;
use std::{collections::HashMap, sync::atomic::Ordering::SeqCst};

#[derive(sqlx::FromRow)]
struct Message {
    id: i64,
    state: String,
    attempt_id: Option<i64>,
    sms_id: Option<i64>,
    ready_at: i64,
}

#[derive(sqlx::FromRow)]
struct Attempt {
    id: i64,
    chunk_id: i64,
    state: String,
    row_ids: String,
    recipients: i64,
    looks: i64,
    look_at: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct Chunk {
    id: i64,
    state: String,
    due_at: i64,
    owner_id: Option<i64>,
}

const MESSAGES: &str = "SELECT id, state, attempt_id, sms_id,
    CASE WHEN coalesce(not_before, 0) > coalesce(scheduled_for, 0) THEN not_before ELSE coalesce(scheduled_for, 0) END
    AS ready_at FROM all_rows ORDER BY id";
const ATTEMPTS: &str = "SELECT id, chunk_id, state, row_ids, recipients, looks, look_at FROM attempts ORDER BY id";
const CHUNKS: &str = "SELECT id, state, due_at, owner_id FROM chunks ORDER BY id";

/// What a picture shows: tables, their keys, their columns.
const PICTURED: [(&str, &str, &str); 5] = [
    (
        "all_rows",
        "id",
        "state reason attempts resends attempt_id sms_id id_source gateway_status sent_via destination scheduled_for valid_until \
         not_before retry_of queued_at attempted_at accepted_at found_at checked_at check_at checks final_at updated_at",
    ),
    ("chunks", "id", "state due_at rows expires_at fed_at feeds blocked batch_len_max"),
    (
        "attempts",
        "id",
        "state row_ids recipients first_row last_row formed_at sending_at ended_at outcome look_at looks looked_at absent",
    ),
    ("campaigns", "name", "id state state_why rate_from updated_at"),
    ("sender_rates", "sender", "rate_us rate_from"),
];

macro_rules! all {
    ($bench:expr, $query:expr) => {
        match &$bench.raw {
            crate::bench::Raw::Sqlite(pool) => sqlx::query_as(AssertSqlSafe($query)).fetch_all(pool).await.unwrap(),
            crate::bench::Raw::Postgres(pool) => sqlx::query_as(AssertSqlSafe($query)).fetch_all(pool).await.unwrap(),
        }
    };
}

impl Bench {
    /// Checks the whole ledger; panics with the row, attempt or chunk that breaks a rule.
    pub(crate) async fn check(&self) {
        let messages: Vec<Message> = all!(self, MESSAGES);
        let attempts: Vec<Attempt> = all!(self, ATTEMPTS);
        let chunks: Vec<Chunk> = all!(self, CHUNKS);
        let short: Vec<String> = self
            .raw
            .strings(
                "SELECT file_name FROM imports i WHERE state = 'loaded' AND rows_in_file <>
                    (SELECT count(*) FROM all_rows WHERE id / 8589934592 = i.id)",
            )
            .await;
        assert!(short.is_empty(), "rows of loaded files are lost or doubled: {short:?}");
        self.check_rows(&messages, &attempts, &chunks);
        check_attempts(&messages, &attempts, &chunks);
        self.check_transitions(&messages);
    }

    /// Forgets the states that rows were in: several steps were made at once.
    pub(crate) fn forget_states(&self) {
        self.before.lock().unwrap().clear();
    }

    fn check_rows(&self, messages: &[Message], attempts: &[Attempt], chunks: &[Chunk]) {
        let attempts: HashMap<i64, &Attempt> = attempts.iter().map(|attempt| (attempt.id, attempt)).collect();
        let chunks: HashMap<i64, &Chunk> = chunks.iter().map(|chunk| (chunk.id, chunk)).collect();
        let mut ids: Vec<i64> = messages.iter().filter_map(|row| row.sms_id).collect();
        let claimed = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), claimed, "an sms_id is claimed twice");
        for row in messages {
            let id = row.id;
            let chunk = chunks.get(&(id / 512)).unwrap_or_else(|| panic!("row {id} has no chunk"));
            let attempt = row.attempt_id.map(|id| attempts[&id]);
            let needs: &[&str] = match (row.state.as_str(), row.sms_id) {
                ("sending", _) => &["formed", "sending"],
                ("unknown", _) => &["unknown"],
                ("accepted", None) => &["accepted"],
                ("held", None) => &["settled"],
                _ => &[],
            };
            if !needs.is_empty() {
                let state = attempt.map(|attempt| attempt.state.as_str());
                assert!(state.is_some_and(|s| needs.contains(&s)), "row {id} is {} in a {state:?} attempt", row.state);
                assert!(rows_of(attempt.unwrap()).contains(&id), "row {id} is not named by its attempt");
            }
            if matches!(row.state.as_str(), "queued" | "scheduled") {
                assert!(row.attempt_id.is_none(), "row {id} is {} and has an attempt", row.state);
                assert_ne!(chunk.state, "done", "row {id} is {} in a chunk that is done", row.state);
                let ready = row.ready_at.max(self.latest.load(SeqCst));
                assert!(
                    chunk.state != "waiting" || chunk.due_at <= ready,
                    "row {id} is ready {} ms before its chunk is looked at",
                    chunk.due_at - ready
                );
            }
        }
        for chunk in chunks.values() {
            assert!(chunk.state != "working" || chunk.owner_id.is_some(), "chunk {} is worked on by nobody", chunk.id);
        }
    }

    fn check_transitions(&self, messages: &[Message]) {
        let mut before = self.before.lock().unwrap();
        for row in messages {
            let now: RowState = row.state.parse().unwrap();
            if let Some(then) = before.insert(row.id, now) {
                assert!(then == now || then.may_become(now), "row {} went from {then} to {now}", row.id);
            }
        }
    }

    /// All that is written of rows, chunks, attempts, campaigns and rates, but what each database chooses by itself: who
    /// owns what, and the keys of hashes.
    pub(crate) async fn picture(&self) -> String {
        let lines = PICTURED.map(|(table, key, columns)| {
            let told: Vec<String> =
                columns.split(' ').map(|column| format!("coalesce(CAST({column} AS TEXT), '-')")).collect();
            format!("SELECT '{table} ' || CAST({key} AS TEXT) || ': ' || {} FROM {table}", told.join(" || ' ' || "))
        });
        let mut lines = self.raw.strings(&lines.join(" UNION ALL ")).await;
        lines.sort_unstable();
        lines.join("\n")
    }
}

fn check_attempts(messages: &[Message], attempts: &[Attempt], chunks: &[Chunk]) {
    let rows: HashMap<i64, &Message> = messages.iter().map(|row| (row.id, row)).collect();
    for attempt in attempts {
        let named = rows_of(attempt);
        assert_eq!(named.len() as i64, attempt.recipients, "attempt {} counts its rows wrongly", attempt.id);
        assert!(chunks.iter().any(|chunk| chunk.id == attempt.chunk_id));
        let own: Vec<&Message> =
            named.iter().map(|id| rows[id]).filter(|row| row.attempt_id == Some(attempt.id)).collect();
        let open = own.iter().any(|row| {
            matches!(row.state.as_str(), "sending" | "unknown") || (row.state == "accepted" && row.sms_id.is_none())
        });
        match attempt.state.as_str() {
            "formed" | "sending" => {
                assert_eq!(own.len(), named.len(), "attempt {} lost a row while it is being made", attempt.id);
                assert!(own.iter().all(|row| row.state == "sending"));
            }
            "released" | "refused" | "settled" => {
                assert!(!open, "attempt {} is {} and a row of it is open", attempt.id, attempt.state);
            }
            "accepted" | "unknown" => {
                let looked_for = attempt.looks == 0 || attempt.look_at.is_some();
                assert!(looked_for, "attempt {} is never looked for again", attempt.id);
            }
            other => panic!("attempt {} is {other}", attempt.id),
        }
    }
}

fn rows_of(attempt: &Attempt) -> Vec<i64> {
    let list = attempt.row_ids.trim_matches(['[', ']']);
    list.split(',').filter(|id| !id.is_empty()).map(|id| id.trim().parse().unwrap()).collect()
}
