//! What becomes of one line of the file.
//!
//! All but [`Verdict::Late`] follows from the bytes and the settings alone, never from the clock or the ledger: both
//! passes over a file, and a later one, cut it into the same chunks.

use crate::{
    columns::Columns,
    options::Defaults,
    refusal::Refusal,
    seen::{Earlier, Numbers, Repeats},
    texts::{Text, Texts},
    times::{Bound, NoTime, ReadTime},
};
use campaign::{Msisdn, SenderId};
use csv::StringRecord;
use jiff::Timestamp;
use std::{collections::HashMap, collections::HashSet, sync::Arc};

/// Most campaigns that one file may hold.
pub const CAMPAIGNS_MAX: usize = 1_000;
const CAMPAIGN_NAME_MAX: usize = 100;
const SENDERS_REMEMBERED: usize = 1_000;

/// Why a row isn't sent: a stable word for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reject {
    pub(crate) code: &'static str,
    pub(crate) reason: String,
}

impl Reject {
    fn new(code: &'static str, reason: impl ToString) -> Self {
        Self { code, reason: reason.to_string() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Sendable,
    Invalid(Reject),
    /// Its `valid_until` has passed: the one verdict that depends on the clock.
    Late(Reject),
    Duplicate(Reject),
}

impl Verdict {
    /// Whether it is kept among the rows to send; see the module's promise.
    pub(crate) fn is_placed_with_sendable(&self) -> bool {
        matches!(self, Self::Sendable | Self::Late(_))
    }

    pub(crate) fn reject(&self) -> Option<&Reject> {
        match self {
            Self::Sendable => None,
            Self::Invalid(reject) | Self::Late(reject) | Self::Duplicate(reject) => Some(reject),
        }
    }
}

/// One line of the file, understood.
pub(crate) struct Row {
    pub(crate) number: u32,
    /// Index into [`Assessor::campaigns`].
    pub(crate) campaign: u16,
    pub(crate) verdict: Verdict,
    pub(crate) destination_raw: String,
    pub(crate) destination: Option<Msisdn>,
    pub(crate) repaired: bool,
    pub(crate) sender: Option<Arc<SenderId>>,
    pub(crate) text: Option<Arc<Text>>,
    pub(crate) reference: Option<String>,
    /// As the file says it, although it may have passed.
    pub(crate) send_at: Option<Timestamp>,
    pub(crate) valid_until: Option<Timestamp>,
    /// A time of it was in a skipped or doubled hour.
    pub(crate) ambiguous_time: bool,
}

/// Judges the rows of one file, in order.
pub(crate) struct Assessor {
    columns: Columns,
    defaults: Defaults,
    approved: Option<HashSet<SenderId>>,
    now: Timestamp,
    campaigns: Vec<String>,
    campaign_by_name: HashMap<String, u16>,
    /// The campaign of the row before.
    last_campaign: Option<u16>,
    senders: HashMap<String, Arc<SenderId>>,
    default_sender: Option<Arc<SenderId>>,
    texts: Texts,
    numbers: Numbers,
    /// The times written last: mostly all rows have the same.
    times: [(String, Option<Result<ReadTime, NoTime>>); 2],
}

impl Assessor {
    pub(crate) fn new(
        columns: Columns,
        defaults: Defaults,
        approved: Option<HashSet<SenderId>>,
        numbers: Numbers,
        now: Timestamp,
    ) -> Self {
        Self {
            default_sender: defaults.sender.clone().map(Arc::new),
            texts: Texts::new(defaults.max_segments),
            columns,
            defaults,
            approved,
            now,
            campaigns: Vec::new(),
            campaign_by_name: HashMap::new(),
            last_campaign: None,
            senders: HashMap::new(),
            numbers,
            times: Default::default(),
        }
    }

    /// The campaigns so far, in order of first use.
    pub(crate) fn campaigns(&self) -> &[String] {
        &self.campaigns
    }

    pub(crate) fn destination_column(&self) -> usize {
        self.columns.destination
    }

    /// Which rows have the number of an earlier one, once all are judged.
    pub(crate) fn into_repeats(self) -> Arc<Repeats> {
        self.numbers.into_repeats()
    }

    pub(crate) fn distinct_texts(&self) -> u64 {
        self.texts.distinct()
    }

    /// Judges the row `number`. Only what spoils the whole file is an error.
    pub(crate) fn assess(&mut self, number: u32, record: &StringRecord) -> Result<Row, Refusal> {
        let mut row = Row {
            number,
            campaign: 0,
            verdict: Verdict::Sendable,
            destination_raw: String::new(),
            destination: None,
            repaired: false,
            sender: None,
            text: None,
            reference: None,
            send_at: None,
            valid_until: None,
            ambiguous_time: false,
        };
        if record.len() != self.columns.len() {
            // Which cell is missing can't be known, so none is believed; it is shown with the row before it.
            row.campaign = match self.last_campaign {
                Some(campaign) => campaign,
                None => self.campaign(number, None)?,
            };
            row.destination_raw = record.get(self.columns.destination).unwrap_or_default().to_owned();
            row.verdict = Verdict::Invalid(Reject::new(
                if record.len() < self.columns.len() { "cells_missing" } else { "cells_extra" },
                format!("the row has {} cells, and the header {}", record.len(), self.columns.len()),
            ));
            return Ok(row);
        }
        let written = cell(record, self.columns.campaign);
        let campaign_problem = written.and_then(|name| check_campaign_name(name).err());
        row.campaign = self.campaign(number, if campaign_problem.is_some() { None } else { written })?;
        self.last_campaign = Some(row.campaign);
        row.destination_raw = record.get(self.columns.destination).unwrap_or_default().to_owned();
        row.reference = cell(record, self.columns.reference).map(unquoted).map(str::to_owned);

        let mut first_problem = campaign_problem.map(|problem| Reject::new("campaign_name", problem));
        let mut note = |reject: Reject| {
            first_problem.get_or_insert(reject);
        };
        match Msisdn::parse(&row.destination_raw, self.defaults.region) {
            Ok(parsed) => {
                row.destination = Some(parsed.msisdn);
                row.repaired = parsed.repaired;
            }
            Err(error) => note(Reject::new(error.code(), error)),
        }
        match self.sender(record) {
            Ok(sender) => row.sender = Some(sender),
            Err(reject) => note(reject),
        }
        match self.text(number, record) {
            Ok(text) => row.text = Some(text),
            Err(reject) => note(reject),
        }
        match self.time(0, record) {
            Ok(read) => {
                row.send_at = read.map(|read| read.at);
                row.ambiguous_time |= read.is_some_and(|read| read.change.is_some());
            }
            Err(error) => note(Reject::new("send_at", format!("send_at is {error}"))),
        }
        match self.time(1, record) {
            Ok(read) => {
                row.valid_until = read.map(|read| read.at);
                row.ambiguous_time |= read.is_some_and(|read| read.change.is_some());
            }
            Err(error) => note(Reject::new("valid_until", format!("valid_until is {error}"))),
        }
        if let (Some(from), Some(until)) = (row.send_at, row.valid_until)
            && until <= from
        {
            note(Reject::new("valid_until_before_send_at", "valid_until is not after send_at"));
        }
        if let Some(reject) = first_problem {
            row.verdict = Verdict::Invalid(reject);
            return Ok(row);
        }
        if let Some(sender) = &row.sender
            && let Some(approved) = &self.approved
            && !approved.contains(sender.as_ref())
        {
            return Err(Refusal::UnapprovedSender { sender: sender.as_ref().clone(), row: number });
        }
        // Only a row that could be sent keeps its number for itself.
        if let Some(destination) = row.destination
            && let Some(earlier) = self.numbers.or_note(destination, number)
        {
            let reason = match earlier {
                Earlier::Row(row) => format!("same number as row {row}"),
                Earlier::Somewhere => "same number as an earlier row".to_owned(),
            };
            row.verdict = Verdict::Duplicate(Reject::new("duplicate", reason));
        } else if row.valid_until.is_some_and(|until| until <= self.now) {
            row.verdict = Verdict::Late(Reject::new("valid_until_past", "valid_until has passed"));
        }
        Ok(row)
    }

    fn campaign(&mut self, row: u32, name: Option<&str>) -> Result<u16, Refusal> {
        let name = name.unwrap_or(&self.defaults.campaign);
        if let Some(&index) = self.campaign_by_name.get(name) {
            return Ok(index);
        }
        let index = u16::try_from(self.campaigns.len())
            .ok()
            .filter(|_| self.campaigns.len() < CAMPAIGNS_MAX)
            .ok_or(Refusal::TooManyCampaigns { row, max: CAMPAIGNS_MAX })?;
        self.campaigns.push(name.to_owned());
        self.campaign_by_name.insert(name.to_owned(), index);
        Ok(index)
    }

    fn sender(&mut self, record: &StringRecord) -> Result<Arc<SenderId>, Reject> {
        let Some(written) = cell(record, self.columns.sender) else {
            return self.default_sender.clone().ok_or_else(|| Reject::new("sender_missing", "the sender is missing"));
        };
        if let Some(sender) = self.senders.get(written) {
            return Ok(Arc::clone(sender));
        }
        let sender = SenderId::parse(written).map(Arc::new).map_err(|error| Reject::new("sender", error))?;
        if self.senders.len() >= SENDERS_REMEMBERED {
            self.senders.clear();
        }
        self.senders.insert(written.to_owned(), Arc::clone(&sender));
        Ok(sender)
    }

    fn text(&mut self, row: u32, record: &StringRecord) -> Result<Arc<Text>, Reject> {
        let written =
            self.columns.text.and_then(|at| record.get(at)).filter(|text| !text.trim().is_empty()).map(unquoted);
        let written = written.or(self.defaults.text.as_deref()).unwrap_or_default();
        let value =
            |column: &str| self.columns.named(column).and_then(|at| record.get(at)).map(str::trim).map(unquoted);
        let has_column = |column: &str| self.columns.named(column).is_some();
        self.texts.of_row(row, written, has_column, value).map_err(|error| Reject::new(error.code(), error))
    }

    fn time(&mut self, which: usize, record: &StringRecord) -> Result<Option<ReadTime>, NoTime> {
        let (column, default, bound) = match which {
            0 => (self.columns.send_at, &self.defaults.send_at, Bound::From),
            _ => (self.columns.valid_until, &self.defaults.valid_until, Bound::Until),
        };
        let Some(written) = cell(record, column).or(default.as_deref()) else { return Ok(None) };
        let (last, read) = &mut self.times[which];
        match read {
            Some(read) if last == written => (*read).map(Some),
            _ => {
                written.clone_into(last);
                (*read.insert(self.defaults.times.read(written, bound))).map(Some)
            }
        }
    }
}

/// A cell that says something, without blanks around it.
fn cell(record: &StringRecord, column: Option<usize>) -> Option<&str> {
    column.and_then(|at| record.get(at)).map(str::trim).filter(|cell| !cell.is_empty())
}

/// Free text without the `'` that a spreadsheet-safe export puts before a formula character, so that a report that is
/// sent again says what was sent before.
fn unquoted(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|rest| rest.starts_with(['=', '+', '-', '@', '\t', '\r'])).unwrap_or(cell)
}

pub(crate) fn check_campaign_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("the campaign's name is empty")
    } else if name.chars().count() > CAMPAIGN_NAME_MAX {
        Err("the campaign's name is over 100 characters")
    } else if name.chars().any(char::is_control) {
        Err("the campaign's name has control characters in it")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::unquoted;

    #[test]
    fn only_the_quote_of_a_spreadsheet_safe_export_is_taken_off() {
        assert_eq!(unquoted("'+20% on Friday"), "+20% on Friday");
        assert_eq!(unquoted("'=1"), "=1");
        assert_eq!(unquoted("'tis the season"), "'tis the season");
        assert_eq!(unquoted("+20%"), "+20%");
        assert_eq!(unquoted("'"), "'");
    }
}
