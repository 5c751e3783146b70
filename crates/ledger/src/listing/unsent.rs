//! Listed texts of rows that a restored ledger still has as queued: they were sent after its backup was made.

/// Unsent rows of a sender; parameter 1 is their numbers, 2 the sender.
pub(super) const UNSENT: &str =
    "SELECT m.id, m.destination, t.body, coalesce(m.queued_at, m.updated_at), m.campaign_id, m.text_id
     FROM messages m JOIN texts t ON t.id = m.text_id
     WHERE m.sender = $2 AND m.sms_id IS NULL AND m.state IN ('queued', 'scheduled') AND m.destination ";

/// The reason of a row that may have been sent after the backup.
pub(super) const TWIN: &str = "the ledger was restored, and the list shows this text to this number fewer times than it stands \
    here: whether it was this row's can't be told";

/// The reason of a row whose file may be one that was sent after the backup, and was launched anew.
pub(super) const LAUNCHED_ANEW: &str = "the ledger was restored, and the list shows this text to this number from before this \
    file was launched: whether its file was launched anew can't be told";

/// Explains listed texts that no open row explains by rows that are queued. Each gets an attempt that says where it comes
/// from. Of rows that can't be told apart and of which only some are listed, the first of the others is held, if nothing of
/// its recipient is open; those after it wait behind it. A row that came into the ledger after the time from which on the
/// list is read back can't have been sent before, but its file can, if the backup lacks it: it is held, too.
macro_rules! explain_by_unsent {
    ($tx:expr, $dialect:expr, $sender:expr, $listed:expr, $matches:expr, $skew:expr, $owner:expr, $now:expr, $operation:expr) => {{
        let left: HashSet<SmsId> = $matches.unexplained.iter().copied().collect();
        let left: Vec<&ListedText> = $listed.iter().filter(|text| left.contains(&text.text.sms_id)).collect();
        let numbers: BTreeSet<i64> =
            left.iter().filter_map(|text| Some(text.text.destination?.as_u64().cast_signed())).collect();
        let packed: Vec<i64> = match numbers.is_empty() {
            true => Vec::new(),
            false => sqlx::query_scalar(sql(format!(
                "SELECT DISTINCT p.chunk_id FROM packs p {} packed_rows m ON m.chunk_id = p.chunk_id
                 WHERE (p.sender = $2 OR p.sender IS NULL) AND m.sender = $2 AND m.destination {}",
                $dialect.then_join(),
                $dialect.ids(1)
            )))
            .bind(json_ids(numbers.iter().copied()))
            .bind($sender.as_str())
            .fetch_all(&mut *$tx)
            .await
            .during($operation)?,
        };
        if !packed.is_empty() {
            let packed = json_ids(packed);
            // Locked as whoever else opens a pack locks its chunk.
            let lock = format!("SELECT id FROM chunks WHERE id {} ORDER BY id{}", $dialect.ids(1), $dialect.for_update());
            sqlx::query(sql(lock)).bind(&packed).fetch_all(&mut *$tx).await.during($operation)?;
            unpack!($tx, $dialect, packed, $operation);
        }
        let unsent: Vec<(i64, i64, String, i64, i64, i64)> =
            sqlx::query_as(sql(format!("{}{}", $crate::listing::unsent::UNSENT, $dialect.ids(1))))
                .bind(json_ids(numbers))
                .bind($sender.as_str())
                .fetch_all(&mut *$tx)
                .await
                .during($operation)?;
        let about: HashMap<RowId, (i64, i64, i64)> =
            unsent.iter().map(|row| (RowId(row.0), (row.4, row.5, row.3))).collect();
        let unsent: Vec<Open> = unsent
            .into_iter()
            .filter_map(|(row, number, text, queued, ..)| open_row(row, 0, number, text.into(), queued, $skew))
            .collect();
        let texts: Vec<Listed> = left.iter().map(|text| text.text.clone()).collect();
        let found = match_listed(&texts, &unsent).found;
        $matches.unexplained.retain(|id| !found.iter().any(|(_, sms_id)| sms_id == id));
        let taken: HashSet<RowId> = found.iter().map(|(row, _)| *row).collect();
        let same: HashSet<(Msisdn, &str)> = unsent
            .iter()
            .filter(|row| taken.contains(&row.row))
            .map(|row| (row.destination, &*row.text))
            .collect();
        let mut to_hold = same.clone();
        let mut twins = Vec::new();
        for row in &unsent {
            if !taken.contains(&row.row) && to_hold.remove(&(row.destination, &*row.text)) {
                twins.push(row.row);
            }
        }
        let since: Option<i64> =
            sqlx::query_scalar("SELECT since FROM quarantine").fetch_one(&mut *$tx).await.during($operation)?;
        let anew: Vec<Open> = unsent
            .iter()
            .filter(|row| !taken.contains(&row.row) && !twins.contains(&row.row))
            .filter(|row| since.is_some_and(|since| about[&row.row].2 >= since))
            .map(|row| Open { earliest: i64::MIN, ..row.clone() })
            .collect();
        let unexplained: HashSet<SmsId> = $matches.unexplained.iter().copied().collect();
        let before: Vec<Listed> = texts.iter().filter(|text| unexplained.contains(&text.sms_id)).cloned().collect();
        let anew = match_listed(&before, &anew).found;
        let mut groups: BTreeMap<(ChunkId, i64, Option<&str>), Vec<RowId>> = BTreeMap::new();
        let held = twins.iter().map(|row| (*row, Some($crate::listing::unsent::TWIN)));
        let mut held: Vec<_> =
            held.chain(anew.iter().map(|(row, _)| (*row, Some($crate::listing::unsent::LAUNCHED_ANEW)))).collect();
        if !held.is_empty() {
            // An attempt names only whom it holds: whoever waits behind another row is sent later, by an attempt of its own.
            let free: Vec<i64> = sqlx::query_scalar(sql(format!(
                "SELECT id FROM messages WHERE id {} AND NOT EXISTS (SELECT 1 FROM messages o
                    WHERE o.sender = messages.sender AND o.destination = messages.destination AND {LIVE})",
                $dialect.ids(1)
            )))
            .bind(json_ids(held.iter().map(|(row, _)| row.0)))
            .fetch_all(&mut *$tx)
            .await
            .during($operation)?;
            let mut free: HashSet<RowId> = free.into_iter().map(RowId).collect();
            let numbers: HashMap<RowId, Msisdn> = unsent.iter().map(|row| (row.row, row.destination)).collect();
            let mut first = HashSet::new();
            held.retain(|(row, _)| free.remove(row) && first.insert(numbers[row]));
        }
        for (row, hold) in found.iter().map(|(row, _)| (*row, None)).chain(held) {
            groups.entry((row.chunk(), about[&row].1, hold)).or_default().push(row);
        }
        let times: HashMap<SmsId, i64> = texts.iter().map(|text| (text.sms_id, text.time * 1000 - ms_of($skew))).collect();
        let ids: HashMap<RowId, SmsId> = found.iter().copied().collect();
        let mut restored = Vec::new();
        for ((chunk, text, hold), rows) in groups {
            // One that is listed late must not be older than its attempt.
            let at = rows.iter().map(|row| ids.get(row).map_or(about[row].2, |id| times[id])).min().unwrap_or(ms($now));
            let attempt: i64 = sqlx::query_scalar(
                "INSERT INTO attempts (campaign_id, chunk_id, sender, text_id, sent_via, state, owner_id, row_ids, first_row,
                    last_row, formed_at, sending_at, ended_at, outcome, recipients)
                 VALUES ($1, $2, $3, $4, 'bulk', 'settled', $5, $6, $9, $10, $7, $7, $7,
                    'made after the backup from which the ledger was restored', $8)
                 RETURNING id",
            )
            .bind(about[&rows[0]].0)
            .bind(chunk.0)
            .bind($sender.as_str())
            .bind(text)
            .bind($owner.0)
            .bind(json_ids(rows.iter().map(|row| row.0)))
            .bind(at)
            .bind(rows.len() as i64)
            .bind(rows.iter().map(|row| row.0).min())
            .bind(rows.iter().map(|row| row.0).max())
            .fetch_one(&mut *$tx)
            .await
            .during($operation)?;
            let mut changed = 0;
            for row in &rows {
                // Guarded by the state: nothing is claimed meanwhile, but a person may have cancelled it.
                changed += match ids.get(row) {
                    Some(sms_id) => {
                        restored.push(KnownRow { sms_id: sms_id.0, id: row.0, state: "accepted".to_owned(), due: about[row].2 });
                        sqlx::query(
                            "UPDATE messages SET state = 'accepted', reason = NULL, not_before = NULL, sms_id = $2, id_source = 'list',
                                sent_via = 'bulk', attempt_id = $3, attempts = attempts + 1, attempted_at = $4, accepted_at = $4,
                                found_at = $5, updated_at = $5
                             WHERE id = $1 AND sms_id IS NULL AND state IN ('queued', 'scheduled')",
                        )
                        .bind(row.0)
                        .bind(sms_id.0)
                        .bind(attempt)
                        .bind(times[sms_id])
                        .bind(ms($now))
                        .execute(&mut *$tx)
                        .await
                        .during($operation)?
                        .rows_affected()
                    }
                    None => sqlx::query(sql(format!(
                        "UPDATE messages SET state = 'held', held = 1, live = 1, reason = $2, not_before = NULL, sent_via = 'bulk', attempt_id = $3,
                            attempts = attempts + 1, attempted_at = $4, updated_at = $4
                         WHERE id = $1 AND sms_id IS NULL AND state IN ('queued', 'scheduled')
                            AND NOT EXISTS (SELECT 1 FROM messages o WHERE o.sender = messages.sender
                                AND o.destination = messages.destination AND {LIVE})"
                    )))
                    .bind(row.0)
                    .bind(hold)
                    .bind(attempt)
                    .bind(ms($now))
                    .execute(&mut *$tx)
                    .await
                    .during($operation)?
                    .rows_affected(),
                };
            }
            if changed > 0 {
                let detail = if hold.is_some() { "held: it can't be told from a row that was sent" } else { "found in the gateway's list" };
                let detail = format!("the ledger was restored; {detail}");
                let event = Event {
                    attempt: Some(AttemptId(attempt)),
                    rows: Some(changed),
                    ..Event::new("restored", "reconciler", detail)
                };
                append_event!($tx, event, $now).during($operation)?;
            }
        }
        restored
    }};
}
pub(super) use explain_by_unsent;
