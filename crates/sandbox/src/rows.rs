//! The texts: stored once, listed by sender and time without reading everything.
//!
//! Rows stand in id order; each sender has an index ordered by (time, id), so a closed window of the list is two binary searches. Names and
//! texts are interned: a million texts of a campaign cost one body and about a hundred bytes each.

use crate::clock::Millis;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

/// Where a row came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Send,
    BulkSend,
    /// Put there by a control call: type 2.
    Inbound,
    /// Put there by a control call: type 1, but no call of ours sent it.
    Foreign,
}

/// A row to be.
pub(crate) struct NewRow<'a> {
    pub(crate) source: &'a str,
    pub(crate) destination: &'a str,
    pub(crate) text: &'a str,
    pub(crate) origin: Origin,
    pub(crate) time_s: i64,
    pub(crate) visible_from: Millis,
    pub(crate) final_from: Millis,
    pub(crate) fails: bool,
    pub(crate) listed: bool,
}

/// One text.
pub(crate) struct Row {
    pub(crate) sms_id: u64,
    pub(crate) source: u32,
    pub(crate) text: u32,
    pub(crate) destination: Digits,
    pub(crate) time_s: i64,
    pub(crate) visible_from: Millis,
    final_from: Millis,
    pub(crate) origin: Origin,
    fails: bool,
    deleted: bool,
}

/// A destination: nearly always a short number, which needs no allocation.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Digits {
    Number(u64),
    Other(Box<str>),
}

impl Digits {
    fn new(text: &str) -> Self {
        match text.parse::<u64>() {
            Ok(number) if text.len() < 20 && !text.starts_with(['0', '+']) => Self::Number(number),
            Ok(_) | Err(_) => Self::Other(text.into()),
        }
    }
}

impl std::fmt::Display for Digits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Other(text) => text.fmt(f),
        }
    }
}

impl Row {
    /// "0" pending, "1" sent, "2" failed.
    pub(crate) fn delivery_status(&self, now: Millis) -> &'static str {
        match (now >= self.final_from, self.fails) {
            (false, _) => "0",
            (true, false) => "1",
            (true, true) => "2",
        }
    }

    pub(crate) fn found_by_id(&self, now: Millis) -> bool {
        !self.deleted && now >= self.visible_from
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.origin, Origin::Send | Origin::BulkSend)
    }

    fn place(&self) -> (i64, u64) {
        (self.time_s, self.sms_id)
    }
}

/// Filters of the list; the times are inclusive on both sides.
#[derive(Default)]
pub(crate) struct Filter<'a> {
    pub(crate) sender: Option<&'a str>,
    pub(crate) receiver: Option<&'a str>,
    pub(crate) since_s: Option<i64>,
    pub(crate) until_s: Option<i64>,
    /// Rows that became visible later than this are left out.
    pub(crate) visible_by: Option<Millis>,
}

#[derive(Default)]
struct Names {
    by_name: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

impl Names {
    fn intern(&mut self, name: &str) -> u32 {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = index(self.names.len());
        let name: Arc<str> = name.into();
        self.names.push(name.clone());
        self.by_name.insert(name, id);
        id
    }

    fn get(&self, id: u32) -> &str {
        &self.names[id as usize]
    }
}

/// Every text that the sandbox has.
#[derive(Default)]
pub(crate) struct Rows {
    rows: Vec<Row>,
    names: Names,
    texts: Names,
    listed: Vec<u32>,
    by_source: HashMap<u32, Vec<u32>>,
    hidden: BinaryHeap<Reverse<(Millis, u32)>>,
    last_id: u64,
}

impl Rows {
    /// `first_id` is where ids start, as the gateway's did long ago.
    pub(crate) fn starting_at(first_id: u64) -> Self {
        Self { last_id: first_id, ..Self::default() }
    }

    /// Adds a row whose id is `gap` above the last one (at least 1).
    pub(crate) fn add(&mut self, new: NewRow<'_>, gap: u64, now: Millis) -> &Row {
        self.last_id += gap.max(1);
        let position = index(self.rows.len());
        self.rows.push(Row {
            sms_id: self.last_id,
            source: self.names.intern(new.source),
            text: self.texts.intern(new.text),
            destination: Digits::new(new.destination),
            time_s: new.time_s,
            visible_from: new.visible_from,
            final_from: new.final_from,
            origin: new.origin,
            fails: new.fails,
            deleted: false,
        });
        if new.listed && new.visible_from <= now {
            self.enter(position);
        } else if new.listed {
            self.hidden.push(Reverse((new.visible_from, position)));
        }
        &self.rows[position as usize]
    }

    pub(crate) fn by_id(&self, sms_id: u64) -> Option<&Row> {
        self.rows.binary_search_by_key(&sms_id, |row| row.sms_id).ok().map(|position| &self.rows[position])
    }

    /// Takes a row out of the list and out of reach by id. False when there is none.
    pub(crate) fn delete(&mut self, sms_id: u64) -> bool {
        let Ok(position) = self.rows.binary_search_by_key(&sms_id, |row| row.sms_id) else { return false };
        let rows = &mut self.rows;
        rows[position].deleted = true;
        let (place, source) = (rows[position].place(), rows[position].source);
        for order in [Some(&mut self.listed), self.by_source.get_mut(&source)].into_iter().flatten() {
            if let Ok(found) = order.binary_search_by_key(&place, |&at| rows[at as usize].place()) {
                order.remove(found);
            }
        }
        true
    }

    /// One page, newest first, and how many rows match in all.
    pub(crate) fn list(&mut self, filter: &Filter<'_>, skip: usize, take: usize, now: Millis) -> (Vec<&Row>, usize) {
        self.reveal(now);
        let order: &[u32] = match filter.sender {
            None => &self.listed,
            Some(sender) => {
                let source = self.names.by_name.get(sender);
                source.and_then(|source| self.by_source.get(source)).map_or(&[], Vec::as_slice)
            }
        };
        let row = |at: &u32| &self.rows[*at as usize];
        let from = order.partition_point(|at| filter.since_s.is_some_and(|since| row(at).time_s < since));
        let to = order.partition_point(|at| filter.until_s.is_none_or(|until| row(at).time_s <= until));
        let window = order.get(from..to).unwrap_or(&[]);
        if filter.receiver.is_none() && filter.visible_by.is_none() {
            return (window.iter().rev().skip(skip).take(take).map(row).collect(), window.len());
        }
        let receiver = filter.receiver.map(Digits::new);
        let matching: Vec<&Row> = window
            .iter()
            .rev()
            .map(row)
            .filter(|row| receiver.as_ref().is_none_or(|receiver| *receiver == row.destination))
            .filter(|row| filter.visible_by.is_none_or(|by| row.visible_from <= by))
            .collect();
        (matching.iter().skip(skip).take(take).copied().collect(), matching.len())
    }

    pub(crate) fn source(&self, row: &Row) -> &str {
        self.names.get(row.source)
    }

    pub(crate) fn text(&self, row: &Row) -> &str {
        self.texts.get(row.text)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }

    /// (row, times) for what was accepted more than once by (source, destination, text).
    pub(crate) fn repeated(&self) -> Vec<(&Row, u64)> {
        let mut seen: HashMap<(u32, u32, &Digits), (&Row, u64)> = HashMap::new();
        for row in self.rows.iter().filter(|row| row.is_ours()) {
            seen.entry((row.source, row.text, &row.destination)).or_insert((row, 0)).1 += 1;
        }
        let mut repeated: Vec<_> = seen.into_values().filter(|(_, times)| *times > 1).collect();
        repeated.sort_by_key(|(row, _)| row.sms_id);
        repeated
    }

    fn reveal(&mut self, now: Millis) {
        while self.hidden.peek().is_some_and(|Reverse((from, _))| *from <= now) {
            let Some(Reverse((_, position))) = self.hidden.pop() else { break };
            self.enter(position);
        }
    }

    fn enter(&mut self, position: u32) {
        let rows = &self.rows;
        let row = &rows[position as usize];
        if row.deleted {
            return;
        }
        for order in [&mut self.listed, self.by_source.entry(row.source).or_default()] {
            // Nearly always the end: only a late or injected row, or a clock set back, goes between others.
            let at = match order.last() {
                Some(&last) if rows[last as usize].place() > row.place() => {
                    order.partition_point(|&other| rows[other as usize].place() < row.place())
                }
                Some(_) | None => order.len(),
            };
            order.insert(at, position);
        }
    }
}

fn index(len: usize) -> u32 {
    u32::try_from(len).expect("memory ends long before four billion rows")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(source: &'a str, destination: &'a str, time_s: i64, visible_from: Millis) -> NewRow<'a> {
        NewRow {
            source,
            destination,
            text: "hi",
            origin: Origin::BulkSend,
            time_s,
            visible_from,
            final_from: 0,
            fails: false,
            listed: true,
        }
    }

    fn ids(rows: &mut Rows, filter: &Filter<'_>, now: Millis) -> Vec<u64> {
        rows.list(filter, 0, 100, now).0.iter().map(|row| row.sms_id).collect()
    }

    #[test]
    fn the_list_is_newest_first_and_its_window_includes_both_ends() {
        let mut rows = Rows::default();
        for time in [1, 2, 2, 3, 4] {
            rows.add(row("A", "1", time, 0), 1, 0);
        }
        rows.add(row("B", "1", 2, 0), 1, 0);
        assert_eq!(ids(&mut rows, &Filter { sender: Some("A"), ..Filter::default() }, 0), [5, 4, 3, 2, 1]);
        let window = Filter { sender: Some("A"), since_s: Some(2), until_s: Some(3), ..Filter::default() };
        assert_eq!(ids(&mut rows, &window, 0), [4, 3, 2]);
        assert_eq!(ids(&mut rows, &Filter { since_s: Some(3), until_s: Some(2), ..Filter::default() }, 0), [0; 0]);
        assert_eq!(ids(&mut rows, &Filter::default(), 0), [5, 4, 6, 3, 2, 1]);
    }

    #[test]
    fn a_late_row_takes_its_own_place_once_it_is_visible() {
        let mut rows = Rows::default();
        rows.add(row("A", "1", 1, 50), 1, 0);
        rows.add(row("A", "1", 2, 0), 1, 0);
        assert_eq!(ids(&mut rows, &Filter::default(), 49), [2]);
        assert_eq!(ids(&mut rows, &Filter::default(), 50), [2, 1]);
    }

    #[test]
    fn destinations_come_back_as_they_went_in() {
        for digits in ["447700900123", "447700172124234235252524", "00447700900123", "0"] {
            assert_eq!(Digits::new(digits).to_string(), digits);
        }
    }
}
