//! Transitions that more than one caller makes, each within its caller's transaction and guarded by the state that it leaves.

/// Has a chunk looked at by the time at which a row of it that is queued again is due, or expires: it may have been put to
/// rest before, or wait for a later row.
///
/// Not guarded by the chunk's state: whoever puts the chunk to rest at this moment is waited for, or would not see the row.
macro_rules! wake_chunk {
    ($tx:expr, $chunk:expr, $due:expr, $operation:expr) => {{
        let (first, last) = $chunk.row_range();
        let expiry: Option<i64> = sqlx::query_scalar(
            "SELECT min(valid_until) FROM messages WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled')",
        )
        .bind(first.0)
        .bind(last.0)
        .fetch_one(&mut *$tx)
        .await
        .during($operation)?;
        sqlx::query(
            "UPDATE chunks SET state = CASE WHEN state = 'done' THEN 'waiting' ELSE state END,
                due_at = CASE WHEN state = 'done' OR due_at > $2 THEN $2 ELSE due_at END,
                expires_at = CASE WHEN $3 < coalesce(expires_at, $3 + 1) THEN $3 ELSE expires_at END
             WHERE id = $1",
        )
        .bind($chunk.0)
        .bind($due)
        .bind(expiry)
        .execute(&mut *$tx)
        .await
        .during($operation)?
    }};
}

/// Has chunks looked at whose rows waited behind held ones: one of those is held no more. A chunk that waits behind another
/// is put to rest again by its next claim.
macro_rules! unblock_chunks {
    ($tx:expr, $operation:expr) => {
        sqlx::query("UPDATE chunks SET blocked = 0 WHERE blocked = 1").execute(&mut *$tx).await.during($operation)?
    };
}

/// Says in the rows of an attempt when it became unknown: its own end may lie ahead, or not be known.
macro_rules! touch_rows {
    ($tx:expr, $attempt:expr, $chunk:expr, $now:expr, $operation:expr) => {{
        let (first, last) = $chunk.row_range();
        sqlx::query(
            "UPDATE messages SET updated_at = $4
             WHERE id BETWEEN $1 AND $2 AND attempt_id = $3 AND state = 'attempted'",
        )
        .bind(first.0)
        .bind(last.0)
        .bind($attempt)
        .bind(ms($now))
        .execute(&mut *$tx)
        .await
        .during($operation)?
    }};
}

/// Releases an attempt of which no byte has left, and queues its rows again. Zero rows: someone else had released it.
macro_rules! release_attempt {
    ($tx:expr, $attempt:expr, $chunk:expr, $from:literal, $why:expr, $not_before:expr, $now:expr, $operation:expr) => {{
        let (first, last) = $chunk.row_range();
        let released = sqlx::query(concat!(
            "UPDATE attempts SET state = 'released', ended_at = $2, outcome = $3 WHERE id = $1 AND ended_at IS NULL
             AND state IN (",
            $from,
            ")"
        ))
        .bind($attempt)
        .bind(ms($now))
        .bind($why)
        .execute(&mut *$tx)
        .await
        .during($operation)?
        .rows_affected();
        if released == 1 {
            sqlx::query(
                "UPDATE messages SET state = 'queued', live = NULL, attempt_id = NULL, attempts = attempts - 1, sent_via = NULL,
                    not_before = $5, updated_at = $4
                 WHERE id BETWEEN $1 AND $2 AND attempt_id = $3 AND state = 'attempted'",
            )
            .bind(first.0)
            .bind(last.0)
            .bind($attempt)
            .bind(ms($now))
            .bind($not_before)
            .execute(&mut *$tx)
            .await
            .during($operation)?;
            wake_chunk!($tx, $chunk, ms($now), $operation);
        }
    }};
}

/// Queues the rows of an attempt again that certainly did nothing.
macro_rules! requeue {
    ($tx:expr, $batch:expr, $reason:expr, $not_before:expr, $now:expr, $operation:expr) => {{
        let (first, last) = $batch.chunk.row_range();
        sqlx::query(
            "UPDATE messages SET state = 'queued', live = NULL, attempt_id = NULL, reason = $5, not_before = $6, updated_at = $4
             WHERE id BETWEEN $1 AND $2 AND attempt_id = $3 AND state = 'attempted'",
        )
        .bind(first.0)
        .bind(last.0)
        .bind($batch.attempt.0)
        .bind(ms($now))
        .bind($reason)
        .bind($not_before)
        .execute(&mut *$tx)
        .await
        .during($operation)?;
        wake_chunk!($tx, $batch.chunk, $not_before, $operation);
    }};
}

/// Rejects rows that the gateway refused as wrong. They were queued again a statement earlier, in the same transaction.
macro_rules! reject {
    ($tx:expr, $batch:expr, $rows:expr, $reason:expr, $now:expr, $operation:expr, $dialect:expr) => {{
        sqlx::query(sql(format!(
            "UPDATE messages SET state = 'rejected', reason = $2, final_at = $3, updated_at = $3, attempt_id = $4,
                not_before = NULL
             WHERE id {} AND state = 'queued'",
            $dialect.ids(1)
        )))
        .bind(json_ids($rows.map(|row| row.0)))
        .bind($reason)
        .bind(ms($now))
        .bind($batch.attempt.0)
        .execute(&mut *$tx)
        .await
        .during($operation)?;
    }};
}

/// Puts a chunk to rest: done when none of its rows is queued, else waiting until the first is due.
macro_rules! rest_chunk {
    ($tx:expr, $dialect:expr, $chunk:expr, $owner:expr, $now:expr, $operation:expr) => {{
        let (first, last) = $chunk.row_range();
        if $dialect == $crate::db::Dialect::Postgres {
            // Locked before its rows are counted: a row that is queued again at this moment is counted, or wakes it after.
            sqlx::query("UPDATE chunks SET state = state WHERE id = $1 AND state = 'working' AND owner_id = $2")
                .bind($chunk.0)
                .bind($owner)
                .execute(&mut *$tx)
                .await
                .during($operation)?;
        }
        let statement =
            "UPDATE chunks SET state = CASE WHEN unsent.rows > 0 THEN 'waiting' ELSE 'done' END, due_at = coalesce(unsent.due, $3),
                blocked = CASE WHEN unsent.rows > 0 AND unsent.rows = unsent.behind_held THEN 1 ELSE 0 END, owner_id = NULL
             FROM (SELECT count(*) AS rows, count(CASE WHEN reason = $4 THEN 1 END) AS behind_held,
                       min(CASE WHEN coalesce(not_before, 0) > coalesce(scheduled_for, 0)
                           THEN not_before ELSE coalesce(scheduled_for, 0) END) AS due
                   FROM messages WHERE id BETWEEN $5 AND $6 AND state IN ('queued', 'scheduled')) AS unsent
             WHERE chunks.id = $1 AND chunks.state = 'working' AND chunks.owner_id = $2";
        let behind_held = $crate::claims::BEHIND_HELD;
        $crate::writer::later!($tx, statement, [$chunk.0, $owner, ms($now), behind_held, first.0, last.0])
            .during($operation)?;
    }};
}

pub(crate) use {reject, release_attempt, requeue, rest_chunk, touch_rows, unblock_chunks, wake_chunk};
