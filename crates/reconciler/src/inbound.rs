//! What people write to us, found in the same list: opt-outs by keyword, and replies.
//!
//! The list can't be asked for received texts alone. While nothing is being sent a window of it holds nothing else, and one
//! call reads it; while something is, it is asked for what each of our senders received, a call for each.

use crate::{Reconciler, RoundError, odd::Odd};
use campaign::{Msisdn, SenderId, SmsId, budget::CallClass};
use gateway::{ListQuery, wire};
use jiff::{SignedDuration, Timestamp};
use ledger::InboundText;
use std::collections::HashSet;

/// The name under which it is remembered how far was read, in seconds of the gateway's clock.
const READ_TO: &str = "inbound_read_to";

/// Each reading goes over this much of the last one again: a text may be listed later than it was received.
const OVERLAP_S: i64 = 600;

/// How far back the first reading goes.
const FIRST_S: i64 = 7 * 24 * 3600;

/// A window that ends this far in the past does not grow at its end.
const BEHIND_S: i64 = 2;

impl Reconciler {
    /// Reads what was received since the last time, when it is time.
    pub(crate) async fn read_inbound(&self) -> Result<(), RoundError> {
        let now = self.ledger.now();
        if self.inbound_at.lock().expect("no one panics while holding the time").is_some_and(|at| now < at) {
            return Ok(());
        }
        let every = SignedDuration::try_from(self.settings.inbound_every).unwrap_or(SignedDuration::MAX);
        let read_to = self.ledger.learned(READ_TO).await?;
        let skew = *self.skew.lock().expect("no one panics while holding the skew");
        let until = Self::gateway_second(now, skew.unwrap_or_default()) - BEHIND_S;
        // Another process may have read only just now.
        let due = read_to.is_none_or(|read_to| until - read_to >= every.as_secs() - BEHIND_S);
        let next = if due { now + every } else { now + every.min(SignedDuration::from_secs(5)) };
        *self.inbound_at.lock().expect("no one panics while holding the time") = Some(next);
        if !due {
            return Ok(());
        }
        let skew = self.skew().await?;
        let until = Self::gateway_second(now, skew) - BEHIND_S;
        let since = read_to.unwrap_or(until - FIRST_S) - OVERLAP_S;
        let ledger_time = |second| Timestamp::from_second(second).map_or(Timestamp::MIN, |at| at - skew);
        let margin = SignedDuration::from_secs(5);
        let busy = self.ledger.sent_between(ledger_time(since) - margin, now).await?;
        let receivers = self.ledger.receivers().await?;
        // What was sent before this ledger began is none of its attempts, and may be any number of pages.
        let mut complete = true;
        if read_to.is_some() && !busy {
            complete &= self.read_received(None, since, until).await?;
        } else if receivers.is_empty() {
            return Ok(());
        } else {
            let mut odd = Odd::default();
            for receiver in &receivers {
                let read = self.read_received(Some(receiver), since, until).await;
                odd.set_aside(read.map(|whole| complete &= whole))?;
            }
            odd.told()?;
        }
        if complete {
            self.ledger.learn_max(READ_TO, until, now).await?;
        }
        Ok(())
    }

    /// Reads a window, newest first, until all that it lists is known. Answers whether it is: pages that moved are read again
    /// the next time, and whatever was taken stays taken.
    async fn read_received(&self, receiver: Option<&SenderId>, since: i64, until: i64) -> Result<bool, RoundError> {
        let (mut seen, mut others) = (HashSet::new(), HashSet::new());
        let mut page = 1;
        loop {
            let query = ListQuery {
                answered: receiver.cloned(),
                sent_since: Timestamp::from_second(since).ok(),
                sent_until: Timestamp::from_second(until).ok(),
                page,
                ..ListQuery::default()
            };
            let listed = self.gateway.list(CallClass::Status, &query).await?;
            self.note_skew(listed.clock_skew);
            let mut received = Vec::new();
            for row in listed.rows {
                seen.insert(row.sms_id);
                if row.message_type == wire::MessageType::Received {
                    received.push(self.inbound_text(row));
                } else {
                    others.insert(row.sms_id);
                }
            }
            let now = self.ledger.now();
            let taken = self.ledger.take_inbound(&received, now).await?;
            if taken.new > 0 {
                let (stops, starts) = (taken.stops, taken.starts);
                tracing::info!(texts.new = taken.new, texts.stop = stops, texts.start = starts, "people wrote");
            }
            let known = self.ledger.known_inbound(receiver.map(SenderId::as_str), since, until).await?;
            if known + others.len() as u64 >= listed.total || seen.len() as u64 == listed.total {
                return Ok(true);
            }
            if page >= listed.last_page {
                tracing::debug!(
                    list.total = listed.total,
                    list.distinct = seen.len(),
                    "the list moved while it was read"
                );
                return Ok(false);
            }
            page += 1;
        }
    }

    fn inbound_text(&self, row: wire::Sms) -> InboundText {
        let person = match row.source.parse() {
            Ok(digits) if !row.source.starts_with('0') => Msisdn::from_digits(digits),
            _ => Msisdn::parse(&row.source, self.settings.region).ok().map(|parsed| parsed.msisdn),
        };
        InboundText {
            sms_id: SmsId(row.sms_id),
            at: row.sent_at().as_second(),
            person,
            source: row.source,
            receiver: row.destination,
            text: row.text,
        }
    }
}
