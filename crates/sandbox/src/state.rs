//! Everything that the sandbox knows, behind one lock: tokens, senders, texts, the window, the book.

use crate::book::{AcceptedText, Book, CallRecord, Twice};
use crate::clock::{Clock, Millis, written};
use crate::config::Config;
use crate::dice::Dice;
use crate::fault::{Fault, Rule, Script};
use crate::limit::{Admission, Window};
use crate::operation::Operation;
use crate::rows::{NewRow, Origin, Row, Rows};
use crate::tokens::Tokens;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufWriter, Write};

/// Where ids start: beyond the recorded ones.
const FIRST_ID: u64 = 750_000;

/// A sender id as its list shows it.
pub(crate) struct Sender {
    pub(crate) id: u64,
    pub(crate) sender_id: String,
    pub(crate) approved: bool,
    pub(crate) created_s: i64,
    pub(crate) updated_s: Option<i64>,
}

/// How a fault bends the effect of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Twist {
    /// Only this share of the destinations.
    pub(crate) part: Option<f64>,
    pub(crate) unlisted: bool,
    pub(crate) lag_ms: i64,
    pub(crate) shuffle_total: bool,
}

/// Names one arrived call, so that its answer is written beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    epoch: u64,
    at: usize,
}

pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) base_url: String,
    pub(crate) script: Script,
    pub(crate) window: Window,
    pub(crate) tokens: Tokens,
    pub(crate) senders: Vec<Sender>,
    pub(crate) rows: Rows,
    pub(crate) book: Book,
    pub(crate) dice: Dice,
    clock: Clock,
    calls: Vec<CallRecord>,
    epoch: u64,
    open: u64,
    book_file: Option<BufWriter<File>>,
}

impl State {
    /// # Errors
    /// The book's file can't be opened for appending.
    pub(crate) fn new(config: Config, base_url: String) -> std::io::Result<Self> {
        let book_file = match &config.book_file {
            Some(path) => Some(BufWriter::new(File::options().create(true).append(true).open(path)?)),
            None => None,
        };
        let mut state = Self {
            base_url,
            script: Script::new(config.seed, config.faults.clone()),
            window: Window::default(),
            tokens: Tokens::new(RandomState::new().hash_one("tokens")),
            senders: Vec::new(),
            rows: Rows::starting_at(FIRST_ID),
            book: Book::default(),
            dice: Dice::new(config.seed.wrapping_add(1)),
            clock: Clock::start(),
            calls: Vec::new(),
            epoch: 0,
            open: 0,
            book_file,
            config,
        };
        state.seed_senders();
        Ok(state)
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    /// The gateway's own, possibly wrong, time.
    pub(crate) fn written_now(&self) -> Millis {
        self.clock.now().saturating_add(self.config.clock_skew_ms)
    }

    /// Counts a call that arrived and throws the dice over it.
    pub(crate) fn arrive(&mut self, operation: Operation) -> (Ticket, Option<Fault>) {
        let now = self.now();
        if self.window.too_early(now) {
            self.book.calls_before_retry_after += 1;
        }
        *self.book.calls.entry(operation).or_default() += 1;
        let ticket = Ticket { epoch: self.epoch, at: self.calls.len() };
        self.calls.push(CallRecord { at_ms: now, operation, status: None });
        let fault = self.script.strike(operation);
        if let Some(fault) = &fault {
            *self.book.faults.entry(fault.name().to_string()).or_default() += 1;
        }
        (ticket, fault)
    }

    /// Writes down how a call was answered; none where the connection was cut.
    pub(crate) fn answered(&mut self, ticket: Ticket, status: Option<u16>) {
        // A call that arrived before a reset belongs to no book any more.
        if ticket.epoch != self.epoch {
            return;
        }
        let record = &mut self.calls[ticket.at];
        record.status = status;
        self.book.throttled += u64::from(status == Some(429));
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        *self.book.answers.entry(record.operation).or_default().entry(status).or_default() += 1;
    }

    pub(crate) fn admit(&mut self) -> Admission {
        let now = self.now();
        let limit = self.config.rate_limited.then_some(self.config.rate_limit);
        let window_ms = i64::try_from(self.config.rate_window_ms).unwrap_or(i64::MAX);
        self.window.admit(now, limit, self.config.rate_limit, window_ms)
    }

    pub(crate) fn connected(&mut self) {
        self.open += 1;
        self.book.connections += 1;
        self.book.connections_open_max = self.book.connections_open_max.max(self.open);
    }

    pub(crate) fn disconnected(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Takes one text in.
    pub(crate) fn accept(&mut self, origin: Origin, source: &str, destination: &str, text: &str, twist: Twist) -> &Row {
        let now = self.now();
        let time_s = self.written_now().div_euclid(1000);
        let visible_from = now.saturating_add(millis(self.config.list_lag_ms)).saturating_add(twist.lag_ms);
        let delay = self.dice.between(self.config.delivery_min_ms, self.config.delivery_max_ms);
        let wrong_length = !(7..=15).contains(&destination.len());
        let fails = wrong_length
            || self.config.fail_endings.iter().any(|ending| destination.ends_with(ending.as_str()))
            || self.dice.hits(self.config.fail_share);
        let gap = self.dice.between(1, 4);
        let operation = match origin {
            Origin::Send => Operation::Send,
            Origin::BulkSend | Origin::Inbound | Origin::Foreign => Operation::BulkSend,
        };
        self.book.accepted += 1;
        *self.book.accepted_by.entry(operation).or_default() += 1;
        let final_from = now.saturating_add(millis(delay));
        let new = NewRow {
            source,
            destination,
            text,
            origin,
            time_s,
            visible_from,
            final_from,
            fails,
            listed: !twist.unlisted,
        };
        let row = self.rows.add(new, gap, now);
        if let Some(file) = &mut self.book_file {
            let line = serde_json::json!({
                "sms_id": row.sms_id, "operation": operation, "source": source, "destination": destination,
                "text": text, "time": written(row.time_s), "visible_from": row.visible_from,
            });
            if let Err(error) = writeln!(file, "{line}") {
                tracing::warn!(%error, "the book's file can't be written");
            }
        }
        row
    }

    /// Ends one call's writing to the book's file.
    pub(crate) fn flush_book_file(&mut self) {
        if let Some(Err(error)) = self.book_file.as_mut().map(Write::flush) {
            tracing::warn!(%error, "the book's file can't be written");
        }
    }

    pub(crate) fn approved(&self, sender_id: &str) -> bool {
        self.senders.iter().any(|sender| sender.approved && sender.sender_id == sender_id)
    }

    pub(crate) fn summary(&self) -> Book {
        Book { refresh_tokens_presented_twice: self.tokens.presented_twice(), ..self.book.clone() }
    }

    pub(crate) fn texts(&self) -> Vec<AcceptedText> {
        let now = self.now();
        let ours = self.rows.iter().filter(|row| row.is_ours());
        ours.map(|row| AcceptedText {
            sms_id: row.sms_id,
            operation: if row.origin == Origin::Send { Operation::Send } else { Operation::BulkSend },
            source: self.rows.source(row).to_owned(),
            destination: row.destination.to_string(),
            text: self.rows.text(row).to_owned(),
            time: written(row.time_s),
            status: row.delivery_status(now).to_owned(),
            visible_from: row.visible_from,
        })
        .collect()
    }

    pub(crate) fn twice(&self) -> Vec<Twice> {
        let twice = self.rows.repeated().into_iter();
        twice
            .map(|(row, times)| Twice {
                source: self.rows.source(row).to_owned(),
                destination: row.destination.to_string(),
                text: self.rows.text(row).to_owned(),
                times,
            })
            .collect()
    }

    pub(crate) fn calls(&self) -> &[CallRecord] {
        &self.calls
    }

    /// Empties the book, the list, the senders, the window and the script; ids go on, and tokens stay good unless they are to be forgotten.
    pub(crate) fn reset(&mut self, forget_tokens: bool) {
        self.epoch += 1;
        self.rows = Rows::starting_at(self.rows.iter().last().map_or(FIRST_ID, |row| row.sms_id));
        self.calls.clear();
        self.book = Book::default();
        self.window = Window::default();
        self.script.clear();
        self.seed_senders();
        self.book.connections_open_max = self.open;
        if forget_tokens {
            self.tokens.forget();
        } else {
            self.tokens.forget_presentations();
        }
    }

    pub(crate) fn script(&mut self, rules: Vec<Rule>) {
        self.script = Script::new(self.config.seed, rules);
    }

    fn seed_senders(&mut self) {
        self.senders.clear();
        let approved = self.config.senders.iter().map(|name| (name.clone(), true));
        let names: Vec<_> =
            approved.chain(self.config.unapproved_senders.iter().map(|name| (name.clone(), false))).collect();
        for (sender_id, approved) in names {
            self.add_sender(sender_id, approved);
        }
    }

    pub(crate) fn add_sender(&mut self, sender_id: String, approved: bool) {
        let created_s = self.written_now().div_euclid(1000);
        let id = self.senders.last().map_or(1, |last| last.id + 1);
        let updated_s = approved.then_some(created_s);
        self.senders.push(Sender { id, sender_id, approved, created_s, updated_s });
    }
}

/// A setting's milliseconds on the clock's scale.
pub(crate) fn millis(setting: u64) -> i64 {
    i64::try_from(setting).unwrap_or(i64::MAX)
}
