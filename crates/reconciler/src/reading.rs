//! Reading a window of the list, completely or not at all.

use crate::{Reconciler, RoundError};
use campaign::{Msisdn, RowId, SenderId, SmsId, budget::CallClass, matching::Listed, sweep::Window};
use futures::{StreamExt, TryStreamExt};
use gateway::{ListQuery, wire};
use jiff::{SignedDuration, Timestamp};
use ledger::{Delivery, ListedText, NotedReading};
use std::{collections::HashSet, sync::Arc};

/// Pages that are asked for at a time.
const PAGES_AT_A_TIME: usize = 8;

/// A window as the list shows it.
pub(crate) struct Reading {
    /// Texts of type 1, each once.
    pub(crate) texts: Vec<ListedText>,
    /// When the reading began, on the ledger's clock.
    pub(crate) began: Timestamp,
}

impl Reading {
    /// The ids that have no final status.
    pub(crate) fn pending(&self) -> Vec<SmsId> {
        let is_final = |text: &&ListedText| matches!(text.delivery, Some(Delivery::Sent | Delivery::Failed));
        self.texts.iter().filter(|text| !is_final(text)).map(|text| text.text.sms_id).collect()
    }

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
        let mut read = Read::default();
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
        #[cfg(feature = "simulated")]
        let (still, total) = match campaign::mutant::Mutant::PageDriftIgnored.is_on() {
            true => (true, read.ids.len() as u64),
            false => (still, total),
        };
        span.count("pages", u64::from(last_page));
        span.count("texts", read.ids.len() as u64);
        if !still || read.ids.len() as u64 != total {
            tracing::warn!(
                sender = %sender,
                list.total = total,
                list.distinct = read.ids.len(),
                "the list moved while it was read; the reading does not count"
            );
            span.end("moved");
            return Ok(None);
        }
        span.end("complete");
        Ok(Some(Reading { texts: read.texts, began }))
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

/// What was read of a window so far. A window has thousands of rows and few texts: each text is kept once.
#[derive(Default)]
struct Read {
    ids: HashSet<i64>,
    texts: Vec<ListedText>,
    bodies: HashSet<Arc<str>>,
}

impl Read {
    fn take(&mut self, page: Vec<wire::Sms>) {
        for row in page {
            if !self.ids.insert(row.sms_id) || row.message_type != wire::MessageType::Sent {
                continue;
            }
            let text = self.bodies.get(row.text.as_str()).map(Arc::clone).unwrap_or_else(|| {
                let body: Arc<str> = row.text.as_str().into();
                self.bodies.insert(Arc::clone(&body));
                body
            });
            let destination = row.destination.parse().ok().and_then(Msisdn::from_digits);
            self.texts.push(ListedText {
                delivery: delivery(&row.delivery_status),
                text: Listed { sms_id: SmsId(row.sms_id), destination, time: row.sent_at().as_second(), text },
            });
        }
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
