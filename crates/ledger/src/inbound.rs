//! What people wrote to us: their opt-outs by keyword, and other replies.

use crate::{
    Event, Ledger, Result,
    db::{read_conn, write_tx},
    error::During,
    events::append_event,
    opt_outs::{Gate, from_whom, pass_gate},
    time::ms,
};
use campaign::{Keyword, Msisdn, SenderId, SmsId};
use jiff::Timestamp;
use serde::Serialize;

/// A text of type 2, as the gateway lists it.
pub struct InboundText {
    /// Its id at the gateway.
    pub sms_id: SmsId,
    /// Who wrote, as listed.
    pub source: String,
    /// The same as a number, if it is one.
    pub person: Option<Msisdn>,
    /// To whom, as listed.
    pub receiver: String,
    /// What.
    pub text: String,
    /// When: seconds of the gateway's clock.
    pub at: i64,
}

/// What a page of inbound texts brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenInbound {
    /// Texts that were not known.
    pub new: u64,
    /// Of these, those that stop texts.
    pub stops: u64,
    /// Of these, those that ask for texts again.
    pub starts: u64,
}

/// An inbound text as the ledger has it. It holds a number and a text, so it has no `Debug`.
#[derive(Clone, Serialize)]
pub struct Inbound {
    /// When, by the gateway's clock.
    pub time: Timestamp,
    /// Who wrote; absent once numbers are purged.
    pub from: Option<String>,
    /// To whom.
    pub to: String,
    /// What; absent once texts are purged.
    pub text: Option<String>,
    /// `stop` or `start` where it is a keyword.
    pub keyword: Option<String>,
    /// Its id at the gateway.
    pub sms_id: SmsId,
}

#[derive(sqlx::FromRow)]
struct InboundRow {
    sms_id: i64,
    source: Option<String>,
    receiver: String,
    text: Option<String>,
    keyword: Option<String>,
    at: i64,
}

impl Ledger {
    /// Takes texts that people wrote, each once, whatever the order in which they are read. A keyword opts its writer out of
    /// texts from the sender that was answered (of all, if the message names none of ours) or undoes an opt-out that was made by a
    /// message; never one that an operator entered. Of several from one person to one sender the last by the gateway's time counts.
    pub async fn take_inbound(&self, texts: &[InboundText], now: Timestamp) -> Result<TakenInbound> {
        let operation = "take what people wrote";
        let with_keyword = texts.iter().any(|text| Keyword::of(&text.text).is_some());
        let taken = write_tx!(self, operation, |tx, dialect| {
            if with_keyword {
                pass_gate!(tx, Gate::OptOut, dialect, operation);
            }
            let mut taken = TakenInbound::default();
            for text in texts {
                let person = text.person.map(|person| person.as_u64().cast_signed());
                // Who is no number can't be sent a text, so there is nothing to stop.
                let keyword = person.and(Keyword::of(&text.text));
                let sender = SenderId::parse(&text.receiver).map(|sender| sender.as_str().to_owned());
                let ours: Option<String> = sqlx::query_scalar(
                    "SELECT $1 WHERE EXISTS (SELECT 1 FROM senders WHERE sender = $1)
                        OR EXISTS (SELECT 1 FROM attempts WHERE sender = $1)",
                )
                .bind(sender.as_deref().unwrap_or_default())
                .fetch_optional(&mut *tx)
                .await
                .during(operation)?;
                let ours = ours.unwrap_or_default();
                let new = sqlx::query(
                    "INSERT INTO inbound (sms_id, source, person, receiver, sender, text, keyword, at, seen_at)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (sms_id) DO NOTHING",
                )
                .bind(text.sms_id.0)
                .bind(&text.source)
                .bind(person)
                .bind(&text.receiver)
                .bind(&ours)
                .bind(&text.text)
                .bind(keyword.map(Keyword::name))
                .bind(text.at)
                .bind(ms(now))
                .execute(&mut *tx)
                .await
                .during(operation)?
                .rows_affected();
                taken.new += new;
                let (1, Some(keyword), Some(person)) = (new, keyword, person) else { continue };
                let last: i64 = sqlx::query_scalar(
                    "SELECT sms_id FROM inbound WHERE person = $1 AND sender = $2 AND keyword IS NOT NULL
                     ORDER BY at DESC, sms_id DESC LIMIT 1",
                )
                .bind(person)
                .bind(&ours)
                .fetch_one(&mut *tx)
                .await
                .during(operation)?;
                let counts = last == text.sms_id.0;
                let changed = match keyword {
                    _ if !counts => 0,
                    Keyword::Stop => sqlx::query(
                        "INSERT INTO suppressions (destination, sender, made_by, sms_id, reason, added_by, added_at)
                         VALUES ($1, $2, 'message', $3, 'asked for it by message', $4, $5)
                         ON CONFLICT (destination, sender, made_by) DO NOTHING",
                    )
                    .bind(person)
                    .bind(&ours)
                    .bind(text.sms_id.0)
                    .bind(format!("message {}", text.sms_id))
                    .bind(ms(now))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?
                    .rows_affected(),
                    Keyword::Start => sqlx::query(
                        "DELETE FROM suppressions WHERE destination = $1 AND sender = $2 AND made_by = 'message'",
                    )
                    .bind(person)
                    .bind(&ours)
                    .execute(&mut *tx)
                    .await
                    .during(operation)?
                    .rows_affected(),
                };
                let (kind, does, again) = match keyword {
                    Keyword::Stop => ("opted_out", "gets no texts from", "opted out before"),
                    Keyword::Start => ("opted_in", "may get texts again from", "no message of theirs had stopped them"),
                };
                taken.stops += u64::from(keyword == Keyword::Stop);
                taken.starts += u64::from(keyword == Keyword::Start);
                let but = match (counts, changed) {
                    (false, _) => ": a later message of theirs counts".to_owned(),
                    (true, 0) => format!(": nothing changes, {again}"),
                    (true, _) => String::new(),
                };
                let masked = text.person.map(|person| person.masked().to_string()).unwrap_or_default();
                let detail = format!("{masked} {does} {}, by message {}{but}", from_whom(&ours), text.sms_id);
                append_event!(tx, Event::new(kind, format!("message {}", text.sms_id), detail), now)
                    .during(operation)?;
            }
            taken
        });
        Ok(taken)
    }

    /// How many inbound texts are known of a span of the gateway's clock, in seconds, both included: to one receiver or all.
    pub async fn known_inbound(&self, receiver: Option<&str>, since: i64, until: i64) -> Result<u64> {
        let operation = "count what people wrote";
        let known: i64 = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar("SELECT count(*) FROM inbound WHERE at BETWEEN $1 AND $2 AND ($3 = '' OR receiver = $3)")
                .bind(since)
                .bind(until)
                .bind(receiver.unwrap_or_default())
                .fetch_one(&mut *conn)
                .await
                .during(operation)?
        });
        Ok(known.cast_unsigned())
    }

    /// To whom people may write: the account's senders, and whoever was written to before.
    pub async fn receivers(&self) -> Result<Vec<SenderId>> {
        let operation = "read to whom people may write";
        let names: Vec<String> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(
                "SELECT sender FROM senders UNION SELECT sender FROM cursors UNION SELECT receiver FROM inbound",
            )
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        let mut receivers: Vec<SenderId> = names.iter().filter_map(|name| SenderId::parse(name).ok()).collect();
        receivers.sort();
        receivers.dedup();
        Ok(receivers)
    }

    /// Whether anything was sent in a span of the ledger's clock, both ends included.
    pub async fn sent_between(&self, since: Timestamp, until: Timestamp) -> Result<bool> {
        let operation = "read whether anything was sent";
        let sent: i64 = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(
                "SELECT count(*) FROM (SELECT 1 FROM attempts WHERE sending_at BETWEEN $1 AND $2 LIMIT 1) AS sent",
            )
            .bind(ms(since))
            .bind(ms(until))
            .fetch_one(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(sent > 0)
    }

    /// What people wrote, newest first: replies alone, or keywords too.
    pub async fn inbox(&self, keywords_too: bool) -> Result<Vec<Inbound>> {
        let operation = "read what people wrote";
        let rows: Vec<InboundRow> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT sms_id, source, receiver, text, keyword, at FROM inbound
                     WHERE keyword IS NULL OR $1 = 1 ORDER BY at DESC, sms_id DESC",
            )
            .bind(i64::from(keywords_too))
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(rows
            .into_iter()
            .map(|row| Inbound {
                time: Timestamp::from_second(row.at).unwrap_or(Timestamp::UNIX_EPOCH),
                from: row.source,
                to: row.receiver,
                text: row.text,
                keyword: row.keyword,
                sms_id: SmsId(row.sms_id),
            })
            .collect())
    }
}
