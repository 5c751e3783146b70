//! Listed texts of rows about which a person decided without knowing: taken for sent, or given up.
//!
//! Such a row is final and stays what the person said. Its text is its own all the same when the list shows it later, and is
//! no text that nothing explains.

/// Rows of a sender that a person decided about and whose text was never listed; parameter 1 is their numbers, 2 the sender.
/// Its conditions are those of the index `decided_unfound`.
pub(super) const DECIDED: &str =
    "SELECT m.id, m.attempt_id, m.destination, t.body, coalesce(a.sending_at, a.formed_at), m.campaign_id
     FROM messages m JOIN texts t ON t.id = m.text_id JOIN attempts a ON a.id = m.attempt_id
     WHERE m.sender = $2 AND m.sms_id IS NULL AND m.attempt_id IS NOT NULL AND m.final_at IS NOT NULL
       AND (m.state = 'sent' OR m.state = 'cancelled')
       AND m.destination ";

/// Explains listed texts that no open row explains by rows that a person decided about. Open rows come first: a decided one
/// must not take the text of a row whose fate hangs on it.
macro_rules! explain_by_decided {
    ($tx:expr, $dialect:expr, $sender:expr, $listed:expr, $matches:expr, $skew:expr, $now:expr, $operation:expr) => {{
        let left: HashSet<SmsId> = $matches.unexplained.iter().copied().collect();
        let left: Vec<&ListedText> = $listed.iter().filter(|text| left.contains(&text.text.sms_id)).collect();
        let numbers: BTreeSet<i64> =
            left.iter().filter_map(|text| Some(text.text.destination?.as_u64().cast_signed())).collect();
        let decided: Vec<(i64, i64, i64, String, i64, i64)> =
            sqlx::query_as(sql(format!("{}{}", $crate::listing::decided::DECIDED, $dialect.ids(1))))
                .bind(json_ids(numbers))
                .bind($sender.as_str())
                .fetch_all(&mut *$tx)
                .await
                .during($operation)?;
        let campaigns: HashMap<RowId, i64> = decided.iter().map(|row| (RowId(row.0), row.5)).collect();
        let decided: Vec<Open> = decided
            .into_iter()
            .filter_map(|(row, attempt, number, text, sent, _)| {
                open_row(row, attempt, number, text.into(), sent, $skew)
            })
            .collect();
        let texts: Vec<Listed> = left.iter().map(|text| text.text.clone()).collect();
        for (row, sms_id) in match_listed(&texts, &decided).found {
            let said = left.iter().find(|text| text.text.sms_id == sms_id).and_then(|text| text.delivery);
            // Guarded by the missing id: of two readings at once one claims it.
            let claimed = sqlx::query(
                "UPDATE messages SET sms_id = $2, id_source = 'list', found_at = $3, updated_at = $3,
                    gateway_status = CASE WHEN state = 'sent' THEN $4 ELSE gateway_status END
                 WHERE id = $1 AND sms_id IS NULL AND attempt_id IS NOT NULL AND state IN ('sent', 'cancelled')",
            )
            .bind(row.0)
            .bind(sms_id.0)
            .bind(ms($now))
            .bind(said.unwrap_or(Delivery::Pending).name())
            .execute(&mut *$tx)
            .await
            .during($operation)?
            .rows_affected();
            if claimed == 1 {
                $matches.unexplained.retain(|id| *id != sms_id);
                let detail = format!(
                    "the gateway's list shows the text as {sms_id}, {}: it had gone out before it was decided about",
                    said.map_or("with a status that is not known", Delivery::name)
                );
                let event = Event {
                    campaign: campaigns.get(&row).copied().map(CampaignId),
                    row: Some(row),
                    rows: Some(1),
                    ..Event::new("found", "reconciler", detail)
                };
                append_event!($tx, event, $now).during($operation)?;
            }
        }
    }};
}
pub(super) use explain_by_decided;
