//! The texts of a reading, held small: what is read back after a restore may be hundreds of thousands.

use super::{Delivery, ListedText};
use campaign::{Msisdn, SmsId, matching::Listed};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

/// The texts of a window or of a part of it; a body that many of them have is kept once.
#[derive(Clone, Default)]
pub struct Listing {
    lines: Vec<Line>,
    bodies: Vec<Arc<str>>,
    /// Where each of the bodies is.
    places: HashMap<Arc<str>, u32>,
}

#[derive(Clone, Copy)]
struct Line {
    sms_id: SmsId,
    destination: Option<Msisdn>,
    time: i64,
    body: u32,
    delivery: Option<Delivery>,
}

const _: () = assert!(size_of::<Line>() == 32);

impl Listing {
    /// Adds a line of the list: see [`Listed`] and [`ListedText`].
    pub fn push(
        &mut self,
        sms_id: SmsId,
        destination: Option<Msisdn>,
        time: i64,
        body: &str,
        delivery: Option<Delivery>,
    ) {
        let last = self.lines.last().map(|line| line.body).filter(|last| *self.bodies[*last as usize] == *body);
        let body = last.unwrap_or_else(|| self.place_of(body.into()));
        self.lines.push(Line { sms_id, destination, time, body, delivery });
    }

    fn place_of(&mut self, body: Arc<str>) -> u32 {
        match self.places.entry(body) {
            Entry::Occupied(place) => *place.get(),
            Entry::Vacant(vacant) => {
                let place = u32::try_from(self.bodies.len()).expect("a list has no four billion texts");
                self.bodies.push(Arc::clone(vacant.key()));
                *vacant.insert(place)
            }
        }
    }

    /// Puts the texts in the order of their ids, each once. An index to which ids are added in order has full pages; the list is
    /// newest first.
    pub fn in_order(mut self) -> Self {
        self.lines.sort_unstable_by_key(|line| line.sms_id);
        self.lines.dedup_by_key(|line| line.sms_id);
        self
    }

    /// How many texts.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The ids of texts that have no final status.
    pub fn pending(&self) -> impl Iterator<Item = SmsId> + '_ {
        let is_final = |line: &&Line| line.delivery.is_some_and(Delivery::is_final);
        self.lines.iter().filter(move |line| !is_final(line)).map(|line| line.sms_id)
    }

    /// All of them, at most so many at a time.
    pub(super) fn pieces(&self, at_most: usize) -> impl Iterator<Item = Vec<ListedText>> + '_ {
        let whole = |line: &Line| {
            let Line { sms_id, destination, time, body, delivery } = *line;
            let text = Arc::clone(&self.bodies[body as usize]);
            ListedText { text: Listed { sms_id, destination, time, text }, delivery }
        };
        self.lines.chunks(at_most).map(move |lines| lines.iter().map(whole).collect())
    }
}

impl<'a> FromIterator<&'a ListedText> for Listing {
    fn from_iter<T: IntoIterator<Item = &'a ListedText>>(texts: T) -> Self {
        let mut listing = Self::default();
        for ListedText { text, delivery } in texts {
            listing.push(text.sms_id, text.destination, text.time, &text.text, *delivery);
        }
        listing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_comes_in_the_order_of_ids_and_piece_by_piece() {
        let mut listing = Listing::default();
        for (id, body) in [(9, "bye"), (7, "hello"), (8, "bye"), (7, "hello"), (1, "bye")] {
            let delivery = (id != 8).then_some(Delivery::Sent);
            listing.push(SmsId(id), Msisdn::from_digits(447_700_900_000), 5, body, delivery);
        }
        assert_eq!((listing.len(), listing.bodies.len()), (5, 2), "a body is kept once");
        let listing = listing.in_order();
        assert_eq!(listing.pending().collect::<Vec<_>>(), [SmsId(8)]);
        let pieces = listing
            .pieces(3)
            .map(|piece| piece.iter().map(|text| (text.text.sms_id.0, text.text.text.to_string())).collect::<Vec<_>>());
        let bye = || "bye".to_owned();
        assert_eq!(
            pieces.collect::<Vec<_>>(),
            [vec![(1, bye()), (7, "hello".to_owned()), (8, bye())], vec![(9, bye())]]
        );
    }
}
