//! What a file would do, before anything is done.

use crate::{Options, row::Row, row::Verdict, seen::Repeats};
use campaign::text::{Encoding, forcing_ucs2};
use jiff::Timestamp;
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};

const FORCING_MAX: usize = 50;
const SENDERS_MAX: usize = 100;

/// What a file would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// The file's name, without folders.
    pub file_name: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// How it is encoded.
    pub encoding: String,
    /// What separates its cells: `comma`, `semicolon`, `tab` or `pipe`.
    pub delimiter: &'static str,
    /// Names of the columns, as written.
    pub columns: Vec<String>,
    /// Lines below the header, without blank ones.
    pub rows: u64,
    /// Rows that can be sent. Who has opted out is not looked up here.
    pub sendable: u64,
    /// Rows that can't be sent as they are written.
    pub invalid: u64,
    /// The same by reason.
    pub invalid_by_code: BTreeMap<&'static str, u64>,
    /// Rows whose number stood on an earlier one.
    pub duplicates: u64,
    /// Numbers whose lost leading zero was put back, among the sendable.
    pub repaired: u64,
    /// Different texts of all rows; beyond 10,000 some count more than once.
    pub texts: u64,
    /// Sendable rows in GSM-7.
    pub gsm7: u64,
    /// Sendable rows in UCS-2.
    pub ucs2: u64,
    /// Segments of all sendable rows: what is paid for.
    pub segments: u64,
    /// Of these, in rows that are UCS-2.
    pub ucs2_segments: u64,
    /// The characters that force UCS-2, each with the sendable rows that have it; the first 50.
    pub forcing_ucs2: BTreeMap<char, u64>,
    /// Segments that these characters cost: what would be saved if a plain one stood for each.
    pub ucs2_extra_segments: u64,
    /// The same by character: the extra segments of the rows that have it.
    pub forcing_ucs2_extra: BTreeMap<char, u64>,
    /// Sendable rows by sender; the first 100 senders.
    pub senders: BTreeMap<String, u64>,
    /// The campaigns, in order of first use.
    pub campaigns: Vec<CampaignPreview>,
    /// First and last `send_at` to come, of the sendable rows.
    pub scheduled: Option<(Timestamp, Timestamp)>,
    /// The first rows that are not sent.
    pub rejects: Vec<RejectSample>,
    /// The first texts.
    pub samples: Vec<TextSample>,
    /// What else a person should know, a sentence each.
    pub notes: Vec<String>,
    /// The numbers that stand on several rows: loading need not look for them again.
    #[serde(skip)]
    pub(crate) repeats: Arc<Repeats>,
    /// What was in force: flags over `NAME.toml`. Loading uses exactly these.
    pub options: Options,
}

/// One campaign of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CampaignPreview {
    /// As the file names it.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Its rows that can be sent.
    pub sendable: u64,
}

/// A row that is not sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RejectSample {
    /// The spreadsheet's.
    pub row_number: u32,
    /// A stable word.
    pub code: &'static str,
    /// A sentence.
    pub reason: String,
    /// The person's own reference.
    pub reference: Option<String>,
}

/// A text as it would be sent.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct TextSample {
    /// The first row that has it.
    pub row_number: u32,
    /// The rendered text.
    pub text: String,
    /// Its encoding.
    pub encoding: Encoding,
    /// Its segments.
    pub segments: u32,
}

/// Texts are personal: only the shape is shown.
impl std::fmt::Debug for TextSample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextSample")
            .field("row_number", &self.row_number)
            .field("encoding", &self.encoding)
            .field("segments", &self.segments)
            .finish_non_exhaustive()
    }
}

/// Counts rows into a preview.
pub(crate) struct Counter {
    pub(crate) preview: Preview,
    pub(crate) samples_max: usize,
    pub(crate) now: Timestamp,
    pub(crate) ambiguous_times: u64,
    first_ambiguous: u32,
    pub(crate) past_send_at: u64,
    by_campaign: Vec<(u64, u64)>,
}

impl Counter {
    pub(crate) fn new(preview: Preview, samples_max: usize, now: Timestamp) -> Self {
        Self {
            preview,
            samples_max,
            now,
            ambiguous_times: 0,
            first_ambiguous: 0,
            past_send_at: 0,
            by_campaign: Vec::new(),
        }
    }

    pub(crate) fn count(&mut self, row: &Row) {
        let preview = &mut self.preview;
        preview.rows += 1;
        let campaign = usize::from(row.campaign);
        if self.by_campaign.len() <= campaign {
            self.by_campaign.resize(campaign + 1, (0, 0));
        }
        self.by_campaign[campaign].0 += 1;
        if let Some(reject) = row.verdict.reject() {
            match row.verdict {
                Verdict::Duplicate(_) => preview.duplicates += 1,
                Verdict::Invalid(_) | Verdict::Late(_) | Verdict::Sendable => {
                    preview.invalid += 1;
                    *preview.invalid_by_code.entry(reject.code).or_default() += 1;
                }
            }
            if preview.rejects.len() < self.samples_max {
                preview.rejects.push(RejectSample {
                    row_number: row.number,
                    code: reject.code,
                    reason: reject.reason.clone(),
                    reference: row.reference.clone(),
                });
            }
            return;
        }
        preview.sendable += 1;
        self.by_campaign[campaign].1 += 1;
        preview.repaired += u64::from(row.repaired);
        if row.ambiguous_time {
            self.first_ambiguous = if self.ambiguous_times == 0 { row.number } else { self.first_ambiguous };
            self.ambiguous_times += 1;
        }
        if let Some(text) = &row.text {
            preview.segments += u64::from(text.stats.segments);
            match text.stats.encoding {
                Encoding::Gsm7 => preview.gsm7 += 1,
                Encoding::Ucs2 => {
                    preview.ucs2 += 1;
                    preview.ucs2_segments += u64::from(text.stats.segments);
                    let extra = u64::from(text.extra_segments);
                    preview.ucs2_extra_segments += extra;
                    for c in forcing_ucs2(&text.body) {
                        if preview.forcing_ucs2.len() < FORCING_MAX || preview.forcing_ucs2.contains_key(&c) {
                            *preview.forcing_ucs2.entry(c).or_default() += 1;
                            *preview.forcing_ucs2_extra.entry(c).or_default() += extra;
                        }
                    }
                }
            }
            if text.first_row == row.number && preview.samples.len() < self.samples_max {
                preview.samples.push(TextSample {
                    row_number: row.number,
                    text: text.body.to_string(),
                    encoding: text.stats.encoding,
                    segments: text.stats.segments,
                });
            }
        }
        if let Some(sender) = &row.sender {
            if let Some(rows) = preview.senders.get_mut(sender.as_str()) {
                *rows += 1;
            } else if preview.senders.len() < SENDERS_MAX {
                preview.senders.insert(sender.to_string(), 1);
            }
        }
        match row.send_at {
            Some(at) if at > self.now => {
                let (first, last) = preview.scheduled.unwrap_or((at, at));
                preview.scheduled = Some((first.min(at), last.max(at)));
            }
            Some(_) => self.past_send_at += 1,
            None => {}
        }
    }

    /// The preview, with what the counts amount to said in sentences.
    pub(crate) fn finish(self, campaigns: &[String], texts: u64, senders_checked: bool) -> Preview {
        let Self { mut preview, ambiguous_times, first_ambiguous, past_send_at, by_campaign, .. } = self;
        preview.texts = texts;
        preview.campaigns = campaigns
            .iter()
            .zip(by_campaign)
            .map(|(name, (rows, sendable))| CampaignPreview { name: name.clone(), rows, sendable })
            .collect();
        let mut notes = vec![format!("read as {}, separated by {}", preview.encoding, preview.delimiter)];
        let mut note = |count: u64, sentence: &str| {
            if count > 0 {
                notes.push(format!("{count} {}: {sentence}", if count == 1 { "row" } else { "rows" }));
            }
        };
        note(preview.repaired, "the number's lost leading zero was put back");
        note(preview.ucs2, "sent as UCS-2, which holds 70 characters a segment instead of 160");
        let change = "a time that the clocks skip is read as the moment after, one that they show twice as the first for \
                      send_at and the last for valid_until";
        note(ambiguous_times, &format!("{change}; first in row {first_ambiguous}"));
        note(past_send_at, "send_at has passed, sent at once");
        if !senders_checked {
            notes.push("the senders were not checked: `crier senders list` learns which are approved".to_owned());
        }
        preview.notes = notes;
        preview
    }
}
