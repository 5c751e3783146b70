//! Reading a window of the list, and applying it part by part while it is read: neither the gateway nor the ledger waits for the
//! other to be through with it, and of a large window a few thousand texts are held at a time.
//!
//! What is listed was sent, even where the list moves while it is read. What is *not* listed says something only once all of
//! a window was read: a reading that is not complete decides nothing about absence, and moves no cursor.

use crate::{Reconciler, RoundError};
use campaign::{Msisdn, OwnerId, RowId, SenderId, SmsId, budget::CallClass, sweep::Window};
use futures::{StreamExt, stream::FuturesOrdered};
use gateway::{ListQuery, wire};
use jiff::{SignedDuration, Timestamp};
use ledger::{Applied, Delivery, Listing, NotedReading};
use tokio::sync::mpsc;

/// Pages that are asked for at a time.
const PAGES_AT_A_TIME: usize = 8;

/// Why a window is read.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// It is its turn: whoever reads it follows what is pending in it.
    Sweep,
    /// Something is looked for: no one follows the window, and each pending text of it is asked for by itself.
    Look,
    /// The ledger was restored, and whoever this is reads the list back.
    ReadBack(OwnerId),
}

impl Purpose {
    fn class(self) -> CallClass {
        match self {
            Self::Sweep => CallClass::Status,
            Self::Look | Self::ReadBack(_) => CallClass::Resolve,
        }
    }

    /// Texts that are applied together. What is read back is compared with what is queued, as a whole.
    fn part_len(self) -> usize {
        match self {
            // With the pages that are under way then it is still one commit.
            Self::Sweep | Self::Look => ledger::TEXTS_A_COMMIT.saturating_sub(PAGES_AT_A_TIME * 10).max(10),
            Self::ReadBack(_) => usize::MAX,
        }
    }
}

/// What was read of a window, and is applied.
pub(crate) struct Reading {
    /// How many texts of type 1 it lists; `None` if the list did not hold still: then it says nothing of what it does not list.
    pub(crate) listed: Option<u64>,
    /// Those that it listed without a final status.
    pub(crate) pending: Vec<SmsId>,
    /// What it changed.
    pub(crate) applied: Applied,
}

impl Reconciler {
    /// Reads all pages of a window, of one receiver or of all, and applies what it lists.
    pub(crate) async fn read_window(
        &self,
        purpose: Purpose,
        sender: &SenderId,
        receiver: Option<(RowId, Msisdn)>,
        window: Window,
    ) -> Result<Reading, RoundError> {
        let (row, receiver) = receiver.unzip();
        let query = ListQuery { receiver, ..first_page_of(sender, window) };
        let (skew, began) = (self.skew().await?, self.ledger.now());
        let (parts, coming) = mpsc::channel(1);
        // Each ends by itself when the other fails: what was read is applied although the gateway is away by now.
        let (read, applied) = futures::join!(
            self.read_pages(purpose, sender, query, parts),
            self.apply_parts(purpose, sender, skew, coming)
        );
        let (applied, pending) = applied?;
        let listed = read.as_ref().ok().copied().flatten();
        if listed.is_some() || applied.found > 0 {
            let found = applied.found;
            let noted = NotedReading { sender, row, window, skew, began, listed, found };
            self.ledger.note_reading(&noted, self.ledger.now()).await?;
        }
        Ok(Reading { listed: read?, pending, applied })
    }

    /// Reads the pages of a window and hands on its texts of type 1, a full part at once, the rest once the reading is known to
    /// be complete. Answers how many they were, or `None` when it was not: `total` changed from page to page, or the ids were
    /// not as many.
    async fn read_pages(
        &self,
        purpose: Purpose,
        sender: &SenderId,
        query: ListQuery,
        parts: mpsc::Sender<Listing>,
    ) -> Result<Option<u64>, RoundError> {
        let mut span = telemetry::span("read list");
        let first = self.gateway.list(purpose.class(), &query).await?;
        self.note_skew(first.clock_skew);
        let (total, last_page) = (first.total, first.last_page);
        let mut read = Read::default();
        // The list is newest first: from its end on, ids come in the order in which an index grows at its end.
        let mut numbers = (2..=last_page).rev();
        let mut pages = FuturesOrdered::new();
        let mut still = true;
        loop {
            let is_full = read.part.len() >= purpose.part_len();
            while !is_full && pages.len() < PAGES_AT_A_TIME {
                let Some(page) = numbers.next() else { break };
                let query = ListQuery { page, ..query.clone() };
                pages.push_back(async move { self.gateway.list(purpose.class(), &query).await });
            }
            if !is_full && pages.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                // It could not be applied, and that is what is told.
                () = parts.closed() => return Ok(None),
                Ok(place) = parts.reserve(), if is_full => place.send(read.part_in_order()),
                // While a part waits for its place, too: a call that is left alone would run out of its time.
                Some(next) = pages.next() => {
                    let next = next?;
                    still &= next.total == total;
                    read.take(next.rows);
                }
            }
        }
        read.take(first.rows);
        let (distinct, listed) = read.distinct();
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
        // Where it could not be applied, that is what is told.
        let _ = parts.send(read.part_in_order()).await;
        Ok(Some(listed))
    }

    /// Applies what is read as it comes. Answers what changed, and which texts are pending.
    async fn apply_parts(
        &self,
        purpose: Purpose,
        sender: &SenderId,
        skew: SignedDuration,
        mut parts: mpsc::Receiver<Listing>,
    ) -> Result<(Applied, Vec<SmsId>), RoundError> {
        let (mut applied, mut pending) = (Applied::default(), Vec::new());
        while let Some(part) = parts.recv().await {
            let now = self.ledger.now();
            let of_part = match purpose {
                Purpose::Sweep => self.ledger.apply_listing(sender, &part, skew, now).await?,
                Purpose::Look => self.ledger.apply_look(sender, &part, skew, now).await?,
                Purpose::ReadBack(owner) => self.ledger.apply_restored(sender, &part, skew, owner, now).await?,
            };
            if of_part.unexplained > 0 {
                tracing::error!(
                    sender = %sender,
                    texts.unexplained = of_part.unexplained,
                    "the list shows texts from our sender that nothing here explains: who else sends from it?"
                );
            }
            applied += of_part;
            pending.extend(part.pending());
        }
        Ok((applied, pending))
    }

    /// One page of a window: how many pages there are, and how many of its texts are pending.
    pub(crate) async fn sample(&self, sender: &SenderId, window: Window, page: u32) -> Result<(u32, u64), RoundError> {
        let query = ListQuery { page, ..first_page_of(sender, window) };
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

/// Asks for the first page of a window.
fn first_page_of(sender: &SenderId, window: Window) -> ListQuery {
    let [sent_since, sent_until] = [window.since, window.until].map(|second| Timestamp::from_second(second).ok());
    ListQuery { sender: Some(sender.clone()), sent_since, sent_until, page: 1, ..ListQuery::default() }
}

/// What was read of a window so far.
#[derive(Default)]
struct Read {
    /// Texts that are not handed on yet.
    part: Listing,
    /// The ids of all texts of type 1.
    texts: Vec<i64>,
    /// The ids of whatever else was listed.
    others: Vec<i64>,
}

impl Read {
    fn take(&mut self, page: Vec<wire::Sms>) {
        for row in page {
            if row.message_type != wire::MessageType::Sent {
                self.others.push(row.sms_id);
                continue;
            }
            self.texts.push(row.sms_id);
            let destination = row.destination.parse().ok().and_then(Msisdn::from_digits);
            let time = row.sent_at().as_second();
            self.part.push(SmsId(row.sms_id), destination, time, &row.text, delivery(&row.delivery_status));
        }
    }

    fn part_in_order(&mut self) -> Listing {
        std::mem::take(&mut self.part).in_order()
    }

    /// How many ids were listed, and how many of texts of type 1.
    fn distinct(&mut self) -> (u64, u64) {
        let [texts, others] = [&mut self.texts, &mut self.others].map(|ids| {
            ids.sort_unstable();
            ids.dedup();
            ids.len() as u64
        });
        (texts + others, texts)
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
