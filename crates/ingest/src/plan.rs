//! What launching a file would take and whom it would meet; and whether what a plan promised still holds.
//!
//! The file is read once, as for a check, and cut into the chunks that loading would make, so that its gateway calls are
//! counted and not guessed. Memory is bounded: rows go through in blocks, and the ledger is asked about each block.

use crate::{
    Checks, NoPlanId, Options, PlanId, Preview, Refusal,
    check::check_each,
    chunker::Chunker,
    load::{BUFFERED_ROWS_MAX, BUFFERED_TEXTS_MAX, Place, ROWS_PER_APPEND, Shared, place},
    row::{Row, Verdict},
    texts::Text,
};
use campaign::{
    CampaignId, Money, Msisdn, Prices, SenderId,
    forecast::{Calls, list_pages},
    id::CHUNK_ROWS_MAX,
};
use jiff::{SignedDuration, Timestamp};
use ledger::{Ledger, Recipient};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};
use tokio::{sync::mpsc, task::spawn_blocking};

/// People whose earlier texts are looked up in one query, which reads all texts of the window: what of them is kept meanwhile
/// takes some 50 MB.
const PEOPLE_A_LOOKUP: usize = 200_000;
/// Senders that are counted one by one.
const SENDERS_MAX: usize = 1_000;

/// What the settings say about plans.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What a segment costs.
    pub prices: Prices,
    /// In which currency, for people.
    pub currency: String,
    /// Most destinations of one bulk call.
    pub batch_len_max: usize,
    /// How far back earlier texts to the same people count; `None`: not looked for.
    pub overlap_window: Option<SignedDuration>,
}

/// No price, batches of 100, a week.
impl Default for Terms {
    fn default() -> Self {
        let overlap_window = Some(SignedDuration::from_hours(7 * 24));
        Self { prices: Prices::default(), currency: "GBP".to_owned(), batch_len_max: 100, overlap_window }
    }
}

/// What launching a file would do.
#[derive(Clone, Debug, Serialize)]
pub struct Survey {
    /// What it promises, in short.
    pub id: PlanId,
    /// Rows that would be sent: those that can be, without opt-outs.
    pub to_send: u64,
    /// Rows whose person has opted out.
    pub suppressed: u64,
    /// Segments of the rows that would be sent.
    pub segments: u64,
    /// What they cost.
    pub cost: Cost,
    /// The gateway calls that send them and read their statuses.
    pub calls: Calls,
    /// Recipients by sender; the first 1,000 senders.
    pub senders: BTreeMap<SenderId, u64>,
    /// Who got texts lately; `None` without a ledger.
    pub overlap: Option<Overlap>,
}

/// What texts cost.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// All of it that has a price.
    pub amount: Money,
    /// In which currency.
    pub currency: String,
    /// By prefix of the number.
    pub by_prefix: Vec<CostOf>,
    /// By country code, what has no price: then `amount` is not all.
    pub unpriced: Vec<Unpriced>,
}

/// What texts to numbers of one prefix cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CostOf {
    /// Its digits, or `default`.
    pub prefix: String,
    /// Of one segment.
    pub price: Money,
    /// How many.
    pub segments: u64,
    /// Together.
    pub amount: Money,
}

/// Texts to a country that has no price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unpriced {
    /// As in `+49`.
    pub country_code: String,
    /// Its rows.
    pub rows: u64,
    /// Their segments.
    pub segments: u64,
}

/// People of the file who got texts lately, or may have got them.
#[derive(Clone, Debug, Serialize)]
pub struct Overlap {
    /// Since when that was looked for.
    pub since: Timestamp,
    /// Who got any text.
    pub recipients: u64,
    /// Who got one from the same sender.
    pub same_sender: u64,
    /// Who got the same text.
    pub same_text: u64,
    /// When the last of them got any.
    pub latest: Option<Timestamp>,
    /// When the last of them got the same.
    pub same_text_latest: Option<Timestamp>,
    /// The campaigns that they got them from, each with how many of them.
    pub campaigns: BTreeMap<String, u64>,
}

/// Why a file was not surveyed, or not found fit to be launched.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The file is refused whole.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What it is launched on does not hold.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// The same survey may go through later.
    #[error("the ledger could not be asked about the file")]
    Ledger(#[source] ledger::Error),
}

/// A condition of a launch that does not hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotHeld {
    /// There is no such plan.
    #[error(transparent)]
    Id(#[from] NoPlanId),
    /// What the plan promised has changed.
    #[error("the plan {id} no longer holds; what changed since: {}; `crier plan` shows what holds now", changes.join(", "))]
    Plan {
        /// The plan.
        id: PlanId,
        /// In words.
        changes: Vec<&'static str>,
    },
    /// It costs too much.
    #[error("it costs {amount} {currency}, and at most {max} {currency} are allowed (max_cost)")]
    Cost {
        /// What it costs.
        amount: Money,
        /// What is allowed.
        max: Money,
        /// Of both.
        currency: String,
    },
    /// What it costs is not known.
    #[error("a cost of at most {max} is asked for (max_cost), and there is no price for {unpriced}: set plan.prices")]
    Unpriced {
        /// What is allowed.
        max: Money,
        /// Countries, with their rows.
        unpriced: String,
    },
}

/// Checks a file and, where flags or `NAME.toml` launch it on conditions, that these hold: `max_cost`, `require_plan`. They
/// held once for a file that was launched before, and nothing of it is launched once more unless `again`.
///
/// # Errors
/// [`SurveyError`]; nothing of the file may be queued then.
pub async fn checked(
    ledger: &Ledger,
    path: &Path,
    flags: &Options,
    checks: &Checks,
    terms: &Terms,
    again: bool,
) -> Result<Preview, SurveyError> {
    let (to_check, its_flags, its_checks) = (path.to_owned(), flags.clone(), checks.clone());
    let beside = Options::beside(path)?.unwrap_or_default();
    if !flags.clone().or(beside).has_conditions() {
        let check = spawn_blocking(move || crate::check(&to_check, &its_flags, &its_checks));
        let preview = check.await.expect("the reading thread hands panics on")?;
        if !preview.options.has_conditions() {
            return Ok(preview);
        }
    }
    // No condition asks for earlier texts.
    let terms = &Terms { overlap_window: None, ..terms.clone() };
    let (preview, survey, refusal) = match survey(Some(ledger), path, flags, checks, terms).await {
        Ok((preview, survey)) => (preview, survey, None),
        Err(SurveyError::Refused(refusal @ Refusal::UnapprovedSender { .. })) => {
            // Whether that is what changed is for the plan to say.
            let shown = Checks { shows_unapproved: true, ..checks.clone() };
            let (preview, survey) = self::survey(Some(ledger), path, flags, &shown, terms).await?;
            (preview, survey, Some(refusal))
        }
        Err(error) => return Err(error),
    };
    if let Err(why) = survey.holds(&preview.options) {
        // The same command goes on after a crash, whatever has changed meanwhile.
        let launched = !again && ledger.launched_before(&preview.sha256).await.map_err(SurveyError::Ledger)?.is_some();
        return if launched { Ok(preview) } else { Err(why.into()) };
    }
    refusal.map_or(Ok(preview), |refusal| Err(refusal.into()))
}

/// Reads a whole file and says what launching it would take; without a ledger nothing is known of opt-outs and of earlier
/// texts. `checks.approved` goes into the plan's id.
///
/// # Errors
/// [`SurveyError::Refused`] and [`SurveyError::Ledger`].
pub async fn survey(
    ledger: Option<&Ledger>,
    path: &Path,
    flags: &Options,
    checks: &Checks,
    terms: &Terms,
) -> Result<(Preview, Survey), SurveyError> {
    let (blocks, mut to_count) = mpsc::channel::<Vec<Vec<Planned>>>(1);
    let reading = {
        let (path, flags, checks) = (path.to_owned(), flags.clone(), checks.clone());
        spawn_blocking(move || read(&path, &flags, &checks, &blocks))
    };
    let mut tally = Tally::new(ledger, terms, checks.now);
    while let Some(chunks) = to_count.recv().await {
        tally.add(chunks).await.map_err(SurveyError::Ledger)?;
    }
    let preview = reading.await.expect("the reading thread hands panics on")?;
    let survey = tally.finish(&preview, checks).await.map_err(SurveyError::Ledger)?;
    Ok((preview, survey))
}

/// A row that loading would queue.
struct Planned {
    number: u32,
    sender: Arc<SenderId>,
    destination: Msisdn,
    text: Arc<Text>,
    /// Its time, if that is to come.
    due: Option<Timestamp>,
}

/// The blocking half: file → the rows to send, chunk by chunk as loading would cut them.
fn read(
    path: &Path,
    flags: &Options,
    checks: &Checks,
    blocks: &mpsc::Sender<Vec<Vec<Planned>>>,
) -> Result<Preview, Refusal> {
    let mut chunker: Chunker<(u16, bool), Shared, Option<Planned>> =
        Chunker::new(CHUNK_ROWS_MAX, BUFFERED_ROWS_MAX, BUFFERED_TEXTS_MAX);
    let (mut block, mut rows) = (Vec::new(), 0);
    let mut add = |chunk: Vec<Option<Planned>>| {
        rows += chunk.len();
        block.push(chunk.into_iter().flatten().collect::<Vec<_>>());
        if rows >= ROWS_PER_APPEND {
            rows = 0;
            // Whoever counts has ended with an error: what is read from here on is for nobody.
            let _ = blocks.blocking_send(std::mem::take(&mut block));
        }
    };
    let preview = check_each(path, flags, checks, |row| {
        let Place { group, shared, number } = place(&row);
        chunker.push(group, shared, number, planned(row, checks.now));
        while let Some((_, chunk)) = chunker.pop() {
            add(chunk);
        }
    })?;
    chunker.finish();
    while let Some((_, chunk)) = chunker.pop() {
        add(chunk);
    }
    let _ = blocks.blocking_send(block);
    Ok(preview)
}

fn planned(row: Row, now: Timestamp) -> Option<Planned> {
    (row.verdict == Verdict::Sendable).then_some(())?;
    Some(Planned {
        number: row.number,
        sender: row.sender?,
        destination: row.destination?,
        text: row.text?,
        due: row.send_at.filter(|at| *at > now),
    })
}

/// Counts what would be sent.
struct Tally<'a> {
    ledger: Option<&'a Ledger>,
    terms: &'a Terms,
    suppressed: u64,
    opted_out: Sha256,
    to_send: u64,
    segments: u64,
    by_prefix: BTreeMap<String, (Money, u64)>,
    unpriced: BTreeMap<String, (u64, u64)>,
    calls: Calls,
    senders: BTreeMap<SenderId, u64>,
    beyond_senders: u64,
    /// Who got texts lately, if that is asked for.
    overlap: Option<Overlap>,
    campaigns: BTreeMap<CampaignId, u64>,
    /// Those who are not looked up yet.
    to_meet: Vec<Planned>,
}

impl<'a> Tally<'a> {
    fn new(ledger: Option<&'a Ledger>, terms: &'a Terms, now: Timestamp) -> Self {
        let overlap = terms.overlap_window.map(|window| Overlap {
            since: now.checked_sub(window).unwrap_or(Timestamp::MIN),
            recipients: 0,
            same_sender: 0,
            same_text: 0,
            latest: None,
            same_text_latest: None,
            campaigns: BTreeMap::new(),
        });
        Self {
            ledger,
            terms,
            suppressed: 0,
            opted_out: Sha256::new(),
            to_send: 0,
            segments: 0,
            by_prefix: BTreeMap::new(),
            unpriced: BTreeMap::new(),
            calls: Calls::default(),
            senders: BTreeMap::new(),
            beyond_senders: 0,
            overlap,
            campaigns: BTreeMap::new(),
            to_meet: Vec::new(),
        }
    }

    async fn add(&mut self, mut chunks: Vec<Vec<Planned>>) -> ledger::Result<()> {
        if let Some(ledger) = self.ledger {
            let people: Vec<_> =
                chunks.iter().flatten().map(|row| (row.sender.as_ref().clone(), row.destination)).collect();
            let mut opted_out = ledger.suppressed_among(&people).await?.into_iter();
            for chunk in &mut chunks {
                chunk.retain(|row| {
                    let out = opted_out.next().unwrap_or(false);
                    if out {
                        self.suppressed += 1;
                        self.opted_out.update(row.number.to_le_bytes());
                    }
                    !out
                });
            }
        }
        for chunk in &chunks {
            self.count(chunk);
        }
        if self.overlap.is_some() {
            self.to_meet.extend(chunks.into_iter().flatten());
            if self.to_meet.len() >= PEOPLE_A_LOOKUP {
                self.meet().await?;
            }
        }
        Ok(())
    }

    fn count(&mut self, chunk: &[Planned]) {
        let mut batches: HashMap<(&SenderId, u32, Option<Timestamp>), u64> = HashMap::new();
        for row in chunk {
            *batches.entry((&row.sender, row.text.first_row, row.due)).or_default() += 1;
            let segments = u64::from(row.text.stats.segments);
            self.to_send += 1;
            self.segments += segments;
            match self.terms.prices.of(row.destination) {
                Some((prefix, price)) => match self.by_prefix.get_mut(prefix) {
                    Some((_, counted)) => *counted += segments,
                    None => _ = self.by_prefix.insert(prefix.to_owned(), (price, segments)),
                },
                None => {
                    let (rows, counted) = self.unpriced.entry(row.destination.country_code()).or_default();
                    (*rows, *counted) = (*rows + 1, *counted + segments);
                }
            }
            if let Some(recipients) = self.senders.get_mut(row.sender.as_ref()) {
                *recipients += 1;
            } else if self.senders.len() < SENDERS_MAX {
                self.senders.insert(row.sender.as_ref().clone(), 1);
            } else {
                self.beyond_senders += 1;
            }
        }
        for rows in batches.into_values() {
            self.calls.add_rows(rows, self.terms.batch_len_max as u64);
        }
    }

    /// Looks up who got texts lately of those who wait for it.
    async fn meet(&mut self) -> ledger::Result<()> {
        let rows = std::mem::take(&mut self.to_meet);
        let (Some(ledger), Some(overlap)) = (self.ledger, &mut self.overlap) else { return Ok(()) };
        let asked: Vec<Recipient<'_>> = rows
            .iter()
            .map(|row| Recipient { destination: row.destination, sender: &row.sender, text: &row.text.body })
            .collect();
        let mut met: HashMap<usize, (bool, bool)> = HashMap::new();
        for texted in ledger.texted_since(&asked, overlap.since).await? {
            let (same_text, same_sender) = met.entry(texted.nth).or_default();
            *same_text |= texted.same_text_at.is_some();
            *same_sender |= texted.same_sender;
            *self.campaigns.entry(texted.campaign).or_default() += 1;
            overlap.latest = overlap.latest.max(Some(texted.at));
            overlap.same_text_latest = overlap.same_text_latest.max(texted.same_text_at);
        }
        overlap.recipients += met.len() as u64;
        overlap.same_text += met.values().filter(|(same_text, _)| *same_text).count() as u64;
        overlap.same_sender += met.values().filter(|(_, same_sender)| *same_sender).count() as u64;
        Ok(())
    }

    async fn finish(mut self, preview: &Preview, checks: &Checks) -> ledger::Result<Survey> {
        self.calls.list =
            self.senders.values().map(|recipients| list_pages(*recipients)).sum::<u64>() + self.beyond_senders;
        self.meet().await?;
        let overlap = match (self.ledger, self.overlap.take()) {
            (None, _) | (_, None) => None,
            (Some(ledger), Some(overlap)) => {
                let ids: Vec<CampaignId> = self.campaigns.keys().copied().collect();
                let names = ledger.names_of(&ids).await?;
                let named = |(id, rows): (CampaignId, u64)| Some((names.get(&id)?.clone(), rows));
                let campaigns = std::mem::take(&mut self.campaigns).into_iter().filter_map(named).collect();
                Some(Overlap { campaigns, ..overlap })
            }
        };
        let by_prefix: Vec<CostOf> = std::mem::take(&mut self.by_prefix)
            .into_iter()
            .map(|(prefix, (price, segments))| CostOf { prefix, price, segments, amount: price.times(segments) })
            .collect();
        let unpriced = std::mem::take(&mut self.unpriced).into_iter().map(|(code, (rows, segments))| Unpriced {
            country_code: format!("+{code}"),
            rows,
            segments,
        });
        let cost = Cost {
            amount: by_prefix.iter().fold(Money::default(), |sum, part| sum.plus(part.amount)),
            currency: self.terms.currency.clone(),
            by_prefix,
            unpriced: unpriced.collect(),
        };
        Ok(Survey {
            id: self.id(preview, checks),
            to_send: self.to_send,
            suppressed: self.suppressed,
            segments: self.segments,
            cost,
            calls: self.calls,
            senders: self.senders,
            overlap,
        })
    }

    fn id(&self, preview: &Preview, checks: &Checks) -> PlanId {
        // What a launch demands, and how urgent it is, changes no text.
        let options = Options { priority: None, max_cost: None, require_plan: None, ..preview.options.clone() };
        let file = format!("{} {options:?}", preview.sha256);
        let rows = format!("{} {} {} {}", preview.sendable, preview.invalid, preview.duplicates, preview.segments);
        // Without a ledger nobody has opted out yet.
        let opted_out = format!("{} {:x?}", self.suppressed, self.opted_out.clone().finalize());
        let approval = checks.approved.as_ref().map(|approved| {
            let line = |sender: &String| format!("{sender}={} ", approved.iter().any(|id| id.as_str() == sender));
            preview.senders.keys().map(line).collect::<String>()
        });
        let prices = format!("{} {}", self.terms.prices, self.terms.currency);
        PlanId::of([Some(&file), Some(&rows), Some(&opted_out), approval.as_deref(), Some(&prices)])
    }
}

impl Survey {
    /// Whether what the file is launched on holds.
    pub fn holds(&self, conditions: &Options) -> Result<(), NotHeld> {
        if let Some(id) = &conditions.require_plan {
            let id: PlanId = id.parse()?;
            let changes = id.changes(&self.id);
            if !changes.is_empty() {
                return Err(NotHeld::Plan { id, changes });
            }
        }
        let Some(max) = conditions.max_cost else { return Ok(()) };
        if !self.cost.unpriced.is_empty() {
            return Err(NotHeld::Unpriced { max, unpriced: self.cost.unpriced_in_words() });
        }
        if self.cost.amount > max {
            let Cost { amount, currency, .. } = &self.cost;
            return Err(NotHeld::Cost { amount: *amount, max, currency: currency.clone() });
        }
        Ok(())
    }
}

impl Cost {
    /// `+49 (3 rows), +33 (1 row)`; empty when all has a price.
    pub fn unpriced_in_words(&self) -> String {
        let word = |rows| if rows == 1 { "row" } else { "rows" };
        let part = |of: &Unpriced| format!("{} ({} {})", of.country_code, of.rows, word(of.rows));
        let parts: Vec<String> = self.unpriced.iter().map(part).collect();
        parts.join(", ")
    }
}
