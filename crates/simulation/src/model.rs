//! What must hold after each commit and each call, one function for each, over what the ledger's log tells.

use crate::book::{Book, Text};
use campaign::{RowState, keyword::Keyword};
use ledger::simulated::Change;
use std::collections::{BTreeMap, BTreeSet};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What was seen.
    pub seen: String,
}

type Holds = Result<(), Violation>;

macro_rules! hold {
    ($invariant:ident, $holds:expr, $($seen:tt)+) => {
        if !$holds {
            return Err(Violation { invariant: stringify!($invariant), seen: format!($($seen)+) });
        }
    };
}

/// A row as the log tells it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its campaign.
    pub campaign: i64,
    /// To whom.
    pub destination: i64,
    /// From whom.
    pub sender: String,
    /// Its text.
    pub text: String,
    /// Its state.
    pub state: RowState,
    /// Its attempt.
    pub attempt: Option<i64>,
    /// Its id at the gateway.
    pub sms_id: Option<i64>,
    /// Why it is in this state, of a held row.
    pub reason: String,
    /// How often it came back because it was absent.
    pub resends: u32,
    /// A person decided about it.
    pub decided: bool,
}

/// An attempt as the log tells it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its state.
    pub state: String,
    /// Its rows.
    pub rows: Vec<i64>,
    /// Who makes it.
    pub owner: i64,
    /// Its sender is known to be done with it.
    pub ended: bool,
    /// Requests that were made for it.
    pub posts: u32,
}

/// The ledger as its log tells it.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// All rows.
    pub rows: BTreeMap<i64, Row>,
    /// All attempts.
    pub attempts: BTreeMap<i64, Attempt>,
    /// States of campaigns.
    pub campaigns: BTreeMap<i64, String>,
    opted_out: BTreeSet<i64>,
    /// Opt-outs that were made by a message: who, and of which sender.
    stopped: BTreeSet<(i64, String)>,
    /// What people wrote and was taken: by its id the sender that it answered.
    taken: BTreeMap<i64, String>,
    /// Processes that are known to have ended.
    ended: BTreeSet<i64>,
    open: BTreeMap<(String, i64), BTreeSet<i64>>,
    claimed: BTreeMap<i64, i64>,
    /// It is a copy that was put in the ledger's place.
    pub restored: bool,
    /// Token pairs that were committed.
    pub tokens_committed: u32,
}

fn is_open(row: &Row) -> bool {
    use RowState::{Accepted, Held, Sending, Unknown};
    row.sms_id.is_none() && matches!(row.state, Sending | Unknown | Held | Accepted)
}

impl Model {
    /// Takes what a commit changed, and looks whether all still holds.
    pub fn apply(&mut self, change: &Change, book: &Book) -> Holds {
        match change.kind.as_str() {
            "new" => self.insert(change),
            "row" => self.row(change, book),
            "gone" => {
                hold!(
                    no_row_is_lost,
                    self.rows.remove(&change.id).is_some_and(|row| row.attempt.is_none()),
                    "row {} is gone",
                    change.id
                );
                Ok(())
            }
            "attempt" => self.attempt(change),
            "campaign" => {
                self.campaigns.insert(change.id, change.is.clone().unwrap_or_default());
                self.a_campaign_begins_with_all_its_rows(change)
            }
            "owner" => {
                self.ended.insert(change.id);
                Ok(())
            }
            "opt_out" => {
                self.opted_out.insert(change.id);
                if change.is.as_deref() == Some("message") {
                    self.stopped.insert((change.id, change.was.clone().unwrap_or_default()));
                }
                Ok(())
            }
            "opt_in" => {
                if change.a == Some(0) {
                    self.opted_out.remove(&change.id);
                }
                if change.is.as_deref() == Some("message") {
                    self.stopped.remove(&(change.id, change.was.clone().unwrap_or_default()));
                }
                Ok(())
            }
            "inbound" => {
                self.taken.insert(change.id, change.was.clone().unwrap_or_default());
                hold!(what_is_taken_was_written, book.written(change.id).is_some(), "nobody wrote {}", change.id);
                Ok(())
            }
            "token" => {
                self.tokens_committed += 1;
                Ok(())
            }
            "trusted" => self.who_is_queued_after_a_quarantine_was_not_texted(book),
            _ => self.what_is_unexplained_is_of_somebody_else(change.id, book),
        }
    }

    fn what_is_unexplained_is_of_somebody_else(&self, sms_id: i64, book: &Book) -> Holds {
        let row = book.text(sms_id).and_then(|text| text.row);
        hold!(what_is_unexplained_is_of_somebody_else, row.is_none(), "{sms_id} is of row {row:?}");
        Ok(())
    }

    /// A restored ledger is trusted again only when it knows of every text that went out, listed by now or not: what is queued is sent
    /// from here on.
    fn who_is_queued_after_a_quarantine_was_not_texted(&self, book: &Book) -> Holds {
        let missed = book.texts.iter().filter(|text| !self.claimed.contains_key(&text.sms_id)).find(|text| {
            let row = text.row.and_then(|row| self.rows.get(&row));
            row.is_some_and(|row| row.state == RowState::Queued && !self.is_behind_held(row))
        });
        hold!(
            who_is_queued_after_a_quarantine_was_not_texted,
            missed.is_none(),
            "row {:?} went out as {:?}",
            missed.and_then(|text| text.row),
            missed.map(|text| text.sms_id)
        );
        Ok(())
    }

    /// Each file of a run has one campaign.
    fn a_campaign_begins_with_all_its_rows(&self, change: &Change) -> Holds {
        let loaded = self.rows.values().filter(|row| row.campaign == change.id).count();
        let begins = change.was.as_deref() == Some("loading");
        hold!(
            a_campaign_begins_with_all_its_rows,
            !begins || i64::try_from(loaded).ok() == change.a,
            "campaign {} has {loaded} rows and its file {:?}",
            change.id,
            change.a
        );
        Ok(())
    }

    fn insert(&mut self, change: &Change) -> Holds {
        let row = Row {
            campaign: change.b.unwrap_or_default(),
            destination: change.a.unwrap_or_default(),
            sender: change.was.clone().unwrap_or_default(),
            text: change.text.clone().unwrap_or_default(),
            state: change.is.as_deref().unwrap_or_default().parse().expect("a state"),
            attempt: None,
            sms_id: None,
            reason: String::new(),
            resends: 0,
            decided: false,
        };
        hold!(no_row_is_loaded_twice, self.rows.insert(change.id, row).is_none(), "row {} came twice", change.id);
        Ok(())
    }

    fn attempt(&mut self, change: &Change) -> Holds {
        let is = change.is.clone().unwrap_or_default();
        match &change.was {
            None => {
                let rows = serde_json::from_str(change.text.as_deref().unwrap_or("[]")).expect("ids");
                let owner = change.b.unwrap_or_default();
                self.attempts.insert(change.id, Attempt { state: is, rows, owner, ended: false, posts: 0 });
                Ok(())
            }
            Some(was) => {
                let attempt = self.attempts.get_mut(&change.id).expect("inserted before");
                attempt.state.clone_from(&is);
                attempt.ended = change.b.is_some();
                if was == "formed" && is == "sending" {
                    let rows = attempt.rows.clone();
                    self.nobody_is_texted_who_has_opted_out(change.id, &rows)?;
                    self.nothing_begins_while_its_campaign_is_not_active(change.id, &rows)?;
                }
                Ok(())
            }
        }
    }

    /// As many are unknown if their worker dies.
    pub fn few_calls_are_not_recorded(&self, changes: &[Change], most: usize) -> Holds {
        let begun = changes.iter().filter(|change| change.kind == "attempt" && change.is.as_deref() == Some("sending"));
        for owner in begun.filter_map(|change| Some(self.attempts.get(&change.id)?.owner)) {
            let of_owner = self.attempts.values().filter(|attempt| attempt.owner == owner);
            let open = of_owner.filter(|attempt| attempt.state == "sending").count();
            hold!(few_calls_are_not_recorded, open <= most, "owner {owner} has {open}");
        }
        Ok(())
    }

    /// A row stands as its attempt does for as long as that is open: one that ends must have told each of its rows what it is.
    pub fn who_ends_leaves_no_row_behind(&self, changes: &[Change]) -> Holds {
        let ended = |change: &&Change| matches!(change.is.as_deref(), Some("released" | "refused" | "settled"));
        for change in changes.iter().filter(|change| change.kind == "attempt").filter(ended) {
            let rows = self.attempts.get(&change.id).into_iter().flat_map(|attempt| &attempt.rows);
            let left = rows.filter(|row| {
                self.rows
                    .get(row)
                    .is_some_and(|row| row.attempt == Some(change.id) && is_open(row) && row.state != RowState::Held)
            });
            let left: Vec<_> = left.collect();
            hold!(who_ends_leaves_no_row_behind, left.is_empty(), "attempt {} leaves {left:?}", change.id);
        }
        Ok(())
    }

    fn row(&mut self, change: &Change, book: &Book) -> Holds {
        let (id, Some(was)) = (change.id, self.rows.get(&change.id).cloned()) else {
            hold!(no_row_is_lost, false, "row {} was not loaded", change.id);
            return Ok(());
        };
        let state: RowState = change.is.as_deref().unwrap_or_default().parse().expect("a state");
        let operator = was.state == RowState::Held && state != RowState::Held && change.b.is_none()
            || was.decided && state == was.state;
        // A worker that woke up late and had not begun takes its batch back: nothing of that was ever sent.
        let proven_absent = was.state == RowState::Unknown
            && change.text.as_deref().is_some_and(|why| why.starts_with("proven absent"));
        let is = Row {
            state,
            attempt: change.a,
            sms_id: change.b,
            reason: change.text.clone().unwrap_or_default(),
            decided: was.decided || operator,
            resends: was.resends + u32::from(proven_absent && is_requeued(&was, state)),
            ..was.clone()
        };
        self.final_states_are_never_left(id, &was, &is)?;
        self.a_row_becomes_what_it_may(id, &was, &is)?;
        if is_requeued(&was, state) && was.state != RowState::Held {
            self.back_to_queued_only_if_it_did_not_go_out(id, &was, book)?;
            self.sent_again_once(id, &is)?;
        }
        if state == RowState::Held && was.state != RowState::Held {
            self.absence_is_proven(id, &is, book)?;
        }
        if was.sms_id != is.sms_id {
            self.an_sms_id_is_claimed_once(id, &was, &is)?;
            self.an_sms_id_is_of_a_text_like_its_own(id, &is, book)?;
        }
        let key = (is.sender.clone(), is.destination);
        if is_open(&is) {
            self.open.entry(key.clone()).or_default().insert(id);
        } else if let Some(open) = self.open.get_mut(&key) {
            open.remove(&id);
        }
        self.rows.insert(id, is);
        self.one_open_text_a_recipient(&key)
    }

    fn final_states_are_never_left(&self, id: i64, was: &Row, is: &Row) -> Holds {
        hold!(
            final_states_are_never_left,
            !was.state.is_final() || was.state == is.state,
            "row {id}: {} to {}",
            was.state,
            is.state
        );
        Ok(())
    }

    fn a_row_becomes_what_it_may(&self, id: i64, was: &Row, is: &Row) -> Holds {
        // In one commit the list tells a restored ledger that a row was accepted, and what became of it.
        let told = self.restored
            && is.sms_id.is_some()
            && was.state.may_become(RowState::Accepted)
            && RowState::Accepted.may_become(is.state);
        let steps = was.state == is.state || was.state.may_become(is.state) || told;
        hold!(a_row_becomes_what_it_may, steps, "row {id}: {} to {}", was.state, is.state);
        Ok(())
    }

    /// From a definite refusal, from an attempt that did not begin, or from absence that is one.
    fn back_to_queued_only_if_it_did_not_go_out(&self, id: i64, was: &Row, book: &Book) -> Holds {
        let out = book.of_row(id).find(|text| text.attempt == was.attempt);
        hold!(
            back_to_queued_only_if_it_did_not_go_out,
            out.is_none(),
            "row {id} from {}: the gateway has it as {:?}",
            was.state,
            out.map(|text| text.sms_id)
        );
        Ok(())
    }

    fn sent_again_once(&self, id: i64, is: &Row) -> Holds {
        hold!(sent_again_once, is.resends <= 1, "row {id}: {} times", is.resends);
        Ok(())
    }

    /// A row is held as absent only if the list shows it neither now nor later.
    fn absence_is_proven(&self, id: i64, is: &Row, book: &Book) -> Holds {
        let not_known = campaign::resolve::HoldReason::SenderNotKnownToBeDone.sentence();
        let out = book.of_row(id).find(|text| text.attempt == is.attempt && !text.deleted);
        hold!(
            absence_is_proven,
            out.is_none() || is.reason == not_known,
            "row {id} is held ({}): the gateway has it as {:?}",
            is.reason,
            out.map(|text| text.sms_id)
        );
        Ok(())
    }

    fn an_sms_id_is_claimed_once(&mut self, id: i64, was: &Row, is: &Row) -> Holds {
        hold!(an_sms_id_is_claimed_once, was.sms_id.is_none(), "row {id} has had {:?}", was.sms_id);
        let Some(sms_id) = is.sms_id else { return Ok(()) };
        let other = self.claimed.insert(sms_id, id);
        hold!(an_sms_id_is_claimed_once, other.is_none(), "{sms_id} is of the rows {other:?} and {id}");
        Ok(())
    }

    fn an_sms_id_is_of_a_text_like_its_own(&self, id: i64, is: &Row, book: &Book) -> Holds {
        let Some(sms_id) = is.sms_id else { return Ok(()) };
        let like = book.text(sms_id).is_some_and(|text| {
            text.row.is_some() && text.sender == is.sender && text.destination.cast_signed() == is.destination
        });
        hold!(an_sms_id_is_of_a_text_like_its_own, like, "row {id} took {sms_id}");
        Ok(())
    }

    fn one_open_text_a_recipient(&self, key: &(String, i64)) -> Holds {
        let open = self.open.get(key).map_or(0, BTreeSet::len);
        hold!(one_open_text_a_recipient, open <= 1, "rows {:?} are open to one number", self.open.get(key));
        Ok(())
    }

    fn nobody_is_texted_who_has_opted_out(&self, attempt: i64, rows: &[i64]) -> Holds {
        let out = rows.iter().find(|row| {
            self.rows
                .get(row)
                .is_some_and(|row| row.attempt == Some(attempt) && self.opted_out.contains(&row.destination))
        });
        hold!(nobody_is_texted_who_has_opted_out, out.is_none(), "attempt {attempt} began with row {out:?}");
        Ok(())
    }

    fn nothing_begins_while_its_campaign_is_not_active(&self, attempt: i64, rows: &[i64]) -> Holds {
        let campaign = rows.first().and_then(|row| self.rows.get(row)).map(|row| row.campaign);
        let state = campaign.and_then(|campaign| self.campaigns.get(&campaign));
        hold!(
            nothing_begins_while_its_campaign_is_not_active,
            state.is_some_and(|state| state == "active"),
            "attempt {attempt} began: {state:?}"
        );
        Ok(())
    }

    /// A request that sends is about to have its effect. Answers its attempt, and for each destination its row.
    ///
    /// No byte leaves before an attempt is committed that names its destinations, and an attempt is posted once.
    pub fn no_request_before_its_attempt(
        &mut self,
        sender: &str,
        destinations: &[u64],
    ) -> Result<(i64, Vec<i64>), Violation> {
        let named = |attempt: &Attempt| {
            attempt.rows.len() == destinations.len()
                && attempt.rows.iter().zip(destinations).all(|(row, destination)| {
                    let row = &self.rows[row];
                    row.destination == destination.cast_signed() && row.sender == sender
                })
        };
        let of_these = self.attempts.iter().filter(|(_, attempt)| named(attempt));
        // One that was not posted yet before one that was, and one that is being sent before one that was given up.
        let found = of_these.max_by_key(|(id, attempt)| (attempt.posts == 0, attempt.state == "sending", **id));
        let found = found.map(|(id, _)| *id);
        hold!(no_request_before_its_attempt, found.is_some(), "a request for {} rows has none", destinations.len());
        let attempt = found.expect("it holds");
        let state = self.attempts.get_mut(&attempt).expect("it is one of these");
        let rows = state.rows.clone();
        hold!(who_has_ended_sends_nothing, !self.ended.contains(&state.owner), "attempt {attempt} of {}", state.owner);
        state.posts += 1;
        hold!(one_post_an_attempt, state.posts == 1, "attempt {attempt} was posted {} times", state.posts);
        let begun = matches!(state.state.as_str(), "sending" | "unknown" | "settled");
        hold!(no_request_before_its_attempt, begun, "attempt {attempt} is {}", state.state);
        Ok((attempt, rows))
    }

    /// A text of this row has gone out. Which of several rows with one text to one number had gone out a restored ledger can't know:
    /// there it must not go out more often than there are such rows.
    pub fn nobody_is_texted_twice(&self, row: i64, book: &Book) -> Holds {
        let times = book.of_row(row).count();
        let (out, rows) = match self.rows.get(&row) {
            Some(of) if self.restored && times > 1 => (
                book.texts.iter().filter(|text| text.row.is_some() && is_text_of(text, of)).count(),
                self.rows.values().filter(|other| is_same(other, of)).count(),
            ),
            Some(_) | None => (times, 1),
        };
        hold!(nobody_is_texted_twice, out <= rows, "row {row} went out {times} times, {out} texts for {rows} rows");
        Ok(())
    }

    /// Nothing happens to any row by itself any more: final, held, or behind a held one.
    pub fn is_settled(&self) -> bool {
        self.rows.values().all(|row| row.state.is_settled() || self.is_behind_held(row))
    }

    fn is_behind_held(&self, row: &Row) -> bool {
        let open = self.open.get(&(row.sender.clone(), row.destination));
        row.state == RowState::Queued
            && open.into_iter().flatten().any(|other| self.rows[other].state == RowState::Held)
    }

    /// When faults have stopped, every row becomes final or held.
    pub fn all_is_done_in_the_end(&self) -> Holds {
        let open: Vec<String> = self
            .rows
            .iter()
            .filter(|(_, row)| !row.state.is_settled() && !self.is_behind_held(row))
            .map(|(id, row)| {
                let attempt = row.attempt.and_then(|id| Some((id, self.attempts.get(&id)?)));
                let attempt = attempt.map(|(id, attempt)| format!("{id} {} ended {}", attempt.state, attempt.ended));
                format!("{id} {} sms {:?} attempt {attempt:?} {}", row.state, row.sms_id, row.reason)
            })
            .collect();
        hold!(
            all_is_done_in_the_end,
            open.is_empty(),
            "{} rows are open: {:?}",
            open.len(),
            &open[..open.len().min(3)]
        );
        Ok(())
    }

    /// The gateway's book and the ledger tell the same.
    pub fn the_book_agrees(&self, book: &Book) -> Holds {
        for text in &book.texts {
            let Some(row) = text.row else { continue };
            self.nobody_is_texted_twice(row, book)?;
            let told = &self.rows[&row];
            let known = matches!(told.state, RowState::Sent | RowState::Failed | RowState::Held) || told.decided;
            hold!(the_book_agrees, known, "row {row} is {} and went out as {}", told.state, text.sms_id);
        }
        for (id, row) in &self.rows {
            if !row.decided && matches!(row.state, RowState::Sent | RowState::Failed) {
                let text = row.sms_id.and_then(|sms_id| book.text(sms_id));
                let says = text.map(|text| if text.status == 1 { RowState::Sent } else { RowState::Failed });
                hold!(
                    the_book_agrees,
                    says == Some(row.state),
                    "row {id} is {} and the gateway says {says:?}",
                    row.state
                );
            }
        }
        Ok(())
    }

    /// Whatever people wrote is taken in the end, however late it was listed.
    pub fn what_was_written_is_read(&self, book: &Book) -> Holds {
        let left = book.received.iter().find(|text| !self.taken.contains_key(&text.sms_id));
        hold!(what_was_written_is_read, left.is_none(), "nobody has read {:?}", left.map(|text| text.sms_id));
        Ok(())
    }

    /// Who wrote STOP last to a sender gets nothing from it, who wrote START last may; by the gateway's time, whatever the order in
    /// which that was read.
    pub fn the_last_word_counts(&self, book: &Book) -> Holds {
        let mut last: BTreeMap<(i64, &str), (i64, i64, Keyword)> = BTreeMap::new();
        for (sms_id, sender) in &self.taken {
            let Some(text) = book.written(*sms_id) else { continue };
            let Some(keyword) = Keyword::of(&text.text) else { continue };
            let said = last.entry((text.person.cast_signed(), sender)).or_insert((text.time, *sms_id, keyword));
            if (text.time, *sms_id) > (said.0, said.1) {
                *said = (text.time, *sms_id, keyword);
            }
        }
        for ((person, sender), (_, sms_id, keyword)) in last {
            let stopped = self.stopped.contains(&(person, sender.to_owned()));
            hold!(
                the_last_word_counts,
                stopped == (keyword == Keyword::Stop),
                "{sms_id} is {keyword:?}, stopped {stopped}"
            );
        }
        Ok(())
    }

    /// Rows in the files are the rows in the ledger.
    pub fn rows_balance(&self, in_files: usize) -> Holds {
        hold!(rows_balance, self.rows.len() == in_files, "{in_files} in the files, {} in the ledger", self.rows.len());
        Ok(())
    }
}

fn is_text_of(text: &Text, row: &Row) -> bool {
    text.sender == row.sender && text.destination.cast_signed() == row.destination && text.text == row.text
}

fn is_same(one: &Row, other: &Row) -> bool {
    (&one.sender, one.destination, &one.text) == (&other.sender, other.destination, &other.text)
}

fn is_requeued(was: &Row, state: RowState) -> bool {
    use RowState::{Accepted, Held, Sending, Unknown};
    state == RowState::Queued && matches!(was.state, Sending | Unknown | Held | Accepted)
}
