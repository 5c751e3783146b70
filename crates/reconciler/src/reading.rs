//! Reading a window of the list, completely or not at all.

use crate::{Reconciler, RoundError};
use campaign::{Msisdn, RowId, SenderId, SmsId, budget::CallClass, sweep::Window};
use futures::{StreamExt, TryStreamExt};
use gateway::{ListQuery, wire};
use jiff::{SignedDuration, Timestamp};
use ledger::{Delivery, Listing, NotedReading};

/// Pages that are asked for at a time.
const PAGES_AT_A_TIME: usize = 8;

/// A window as the list shows it.
pub(crate) struct Reading {
    /// Texts of type 1, each once.
    pub(crate) texts: Listing,
    /// When the reading began, on the ledger's clock.
    pub(crate) began: Timestamp,
}

impl Reading {
    /// What is kept of it for the stories of rows. `row`: only its number was asked for.
    pub(crate) fn noted<'a>(
        &self,
        sender: &'a SenderId,
        row: Option<RowId>,
        window: Window,
        found: u64,
        skew: SignedDuration,
    ) -> NotedReading<'a> {
        NotedReading { sender, row, window, skew, listed: self.texts.len() as u64, found }
    }
}

impl Reconciler {
    /// Reads all pages of a window, of one receiver or of all. `None` when it did not hold still: `total` changed from page
    /// to page, or the ids were not as many. Such a reading counts for nothing.
    pub(crate) async fn read_window(
        &self,
        class: CallClass,
        sender: &SenderId,
        receiver: Option<Msisdn>,
        window: Window,
    ) -> Result<Option<Reading>, RoundError> {
        let mut span = telemetry::span("read list");
        let began = self.ledger.now();
        let page = |page: u32| ListQuery {
            sender: Some(sender.clone()),
            receiver,
            answered: None,
            sent_since: Timestamp::from_second(window.since).ok(),
            sent_until: Timestamp::from_second(window.until).ok(),
            page,
        };
        let first = self.gateway.list(class, &page(1)).await?;
        self.note_skew(first.clock_skew);
        let (total, last_page) = (first.total, first.last_page);
        let mut read = Read { texts: Listing::for_texts(total), ids: Vec::new() };
        read.take(first.rows);
        let mut pages = futures::stream::iter(2..=last_page)
            .map(|number| {
                let query = page(number);
                async move { self.gateway.list(class, &query).await }
            })
            .buffer_unordered(PAGES_AT_A_TIME);
        let mut still = true;
        while let Some(next) = pages.try_next().await? {
            still &= next.total == total;
            read.take(next.rows);
        }
        let distinct = read.distinct();
        #[cfg(feature = "simulated")]
        let (still, total) = match campaign::mutant::Mutant::PageDriftIgnored.is_on() {
            true => (true, distinct),
            false => (still, total),
        };
        span.count("pages", u64::from(last_page));
        span.count("texts", distinct);
        if !still || distinct != total {
            tracing::warn!(
                sender = %sender,
                list.total = total,
                list.distinct = distinct,
                "the list moved while it was read; the reading does not count"
            );
            span.end("moved");
            return Ok(None);
        }
        span.end("complete");
        Ok(Some(Reading { texts: read.texts.in_order(), began }))
    }

    /// One page of a window: how many pages there are, and how many of its texts are pending.
    pub(crate) async fn sample(&self, sender: &SenderId, window: Window, page: u32) -> Result<(u32, u64), RoundError> {
        let query = ListQuery {
            sender: Some(sender.clone()),
            sent_since: Timestamp::from_second(window.since).ok(),
            sent_until: Timestamp::from_second(window.until).ok(),
            page,
            ..ListQuery::default()
        };
        let listed = self.gateway.list(CallClass::Status, &query).await?;
        self.note_skew(listed.clock_skew);
        let pending = |row: &&wire::Sms| row.delivery_status == wire::DeliveryStatus::Pending;
        Ok((listed.last_page, listed.rows.iter().filter(pending).count() as u64))
    }

    /// Measures the gateway's clock by the smallest reading that there is.
    pub(crate) async fn measure_skew(&self) -> Result<SignedDuration, RoundError> {
        let now = self.ledger.now();
        let query = ListQuery { sent_since: Some(now), sent_until: Some(now), page: 1, ..ListQuery::default() };
        let skew = self.gateway.list(CallClass::Resolve, &query).await?.clock_skew;
        self.note_skew(skew);
        Ok(skew.unwrap_or_default())
    }
}

/// What was read of a window so far.
struct Read {
    texts: Listing,
    /// Of all that was listed, whatever its type.
    ids: Vec<i64>,
}

impl Read {
    fn take(&mut self, page: Vec<wire::Sms>) {
        for row in page {
            self.ids.push(row.sms_id);
            if row.message_type == wire::MessageType::Sent {
                let destination = row.destination.parse().ok().and_then(Msisdn::from_digits);
                let time = row.sent_at().as_second();
                self.texts.push(SmsId(row.sms_id), destination, time, &row.text, delivery(&row.delivery_status));
            }
        }
    }

    /// How many ids were listed.
    fn distinct(&mut self) -> u64 {
        let mut ids = std::mem::take(&mut self.ids);
        ids.sort_unstable();
        ids.dedup();
        ids.len() as u64
    }
}

/// A status that is none of the known ones says nothing; it is never taken for failed.
pub(crate) fn delivery(status: &wire::DeliveryStatus) -> Option<Delivery> {
    match status {
        wire::DeliveryStatus::Pending => Some(Delivery::Pending),
        wire::DeliveryStatus::Sent => Some(Delivery::Sent),
        wire::DeliveryStatus::Failed => Some(Delivery::Failed),
        wire::DeliveryStatus::Unknown(_) => None,
    }
}
