//! Windows that are applied part by part while they are read.

use crate::{
    house::{REFUSED, accepted, asked_for, called, line, page, page_of, quick, reconcile},
    support::{Asked, File, Reply, Server, ledger},
};
use campaign::{RowState, SenderId};
use ledger::{Ledger, TEXTS_A_COMMIT};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
};

/// A part of the window, of the texts of a commit or nearly so, and then some pages that are not of it.
const PART: u64 = TEXTS_A_COMMIT as u64 / 10 * 9;
const TEXTS: usize = TEXTS_A_COMMIT + 100;
const PAGES: usize = TEXTS / 10;

/// The last page that is asked for: the first was read before all others.
const LAST_ASKED: usize = 2;

type States = BTreeMap<RowState, u64>;

/// A window whose last page is answered so until it is mended. A text of its first part is pending until then, too.
struct Window {
    ledger: Ledger,
    server: Server,
    is_mended: Arc<AtomicBool>,
    /// How often the last page was asked for.
    asked: Arc<AtomicU32>,
    _file: File,
}

impl Window {
    async fn with(last_page: fn(&[String]) -> Reply) -> Self {
        let file = File::new();
        let ledger = ledger(&file.url()).await;
        let owner = ledger.register_owner("worker", "here", 1, ledger.now()).await.unwrap();
        let rows: Vec<(&str, u64)> = (0..TEXTS as u64).map(|number| ("ACME", number)).collect();
        called(&ledger, &owner, &rows, 500, accepted).await;
        let at = ledger.now();
        let (is_mended, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let lines: Vec<String> = (0..TEXTS as u64).rev().map(|number| line("ACME", number, at)).collect();
        let (mended, last_asked) = (is_mended.clone(), asked.clone());
        let server = Server::start(move |to: &Asked| {
            if asked_for(to, "sender") != "ACME" {
                return page(&[]);
            }
            let number: usize = asked_for(to, "page").parse().unwrap();
            let mut lines = lines[(number - 1) * 10..number * 10].to_vec();
            if mended.load(SeqCst) {
                return page_of(&lines, PAGES, TEXTS);
            }
            if number == PAGES {
                lines[9] = lines[9].replace(r#""delivery_status":"1""#, r#""delivery_status":"0""#);
            }
            if number == LAST_ASKED {
                last_asked.fetch_add(1, SeqCst);
                return last_page(&lines);
            }
            page_of(&lines, PAGES, TEXTS)
        })
        .await;
        Self { ledger, server, is_mended, asked, _file: file }
    }

    /// Reads until a part is applied and so many readings have come to the last page: all but it and what is pending is known, and
    /// nothing counts as read. Then it is mended.
    async fn is_known_in_part(&self, readings: u32) {
        let part = |states: &States| states.get(&RowState::Sent) >= Some(&PART);
        let until = |states: &States| part(states) && self.asked.load(SeqCst) >= readings;
        let states = reconcile(&self.ledger, &self.server, quick(), until).await;
        assert!(states[&RowState::Accepted] > 10 && states.len() == 2, "{states:?}");
        let acme = SenderId::parse("ACME").unwrap();
        assert_eq!(self.ledger.cursor(&acme).await.unwrap(), None, "the window counts as read");
        let unread: u64 = self.ledger.unread_attempts(&acme, 100).await.unwrap().iter().map(|a| a.recipients).sum();
        assert_eq!(unread, TEXTS as u64, "an attempt was passed");
        self.is_mended.store(true, SeqCst);
        let all = |states: &States| states.get(&RowState::Sent) == Some(&(TEXTS as u64));
        reconcile(&self.ledger, &self.server, quick(), all).await;
    }

    /// How a row of the first part was found.
    async fn first_found(&self) -> Vec<Option<i64>> {
        let story = self.ledger.story("a", 1_000).await.unwrap().unwrap();
        let found = story.found_at.unwrap();
        let readings = story.readings.iter().filter(|reading| (reading.began_at..=reading.read_at).contains(&found));
        readings.map(|reading| reading.listed).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_applied_while_the_rest_is_awaited() {
    Window::with(|_| Reply::Hang).await.is_known_in_part(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_whose_last_page_is_refused_is_known_in_part_and_does_not_count() {
    let window = Window::with(|_| Reply::Json(422, REFUSED.to_owned())).await;
    window.is_known_in_part(2).await;
    assert_eq!(window.first_found().await, [None], "the reading that found it was not complete");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_of_which_one_page_counts_another_total_does_not_count() {
    let window = Window::with(|lines| page_of(lines, PAGES, TEXTS + 1)).await;
    window.is_known_in_part(2).await;
    assert_eq!(window.first_found().await, [None], "the reading that found it was not complete");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_lists_fewer_texts_than_it_counts_does_not_count() {
    Window::with(|lines| page_of(&lines[1..], PAGES, TEXTS)).await.is_known_in_part(2).await;
}
