//! Windows that are applied part by part while they are read.

use crate::{
    house::{REFUSED, accepted, asked_for, called, line, page, page_of, quick, reconcile},
    support::{Asked, File, Reply, Server, ledger},
};
use campaign::{RowState, SenderId};
use ledger::TEXTS_A_COMMIT;
use std::{collections::BTreeMap, sync::Arc};

/// A part of the window, and then some pages that are not of it.
const TEXTS: usize = TEXTS_A_COMMIT + 100;
const PAGES: usize = TEXTS / 10;

/// A reading of which the last page that is asked for, the second, is answered so: the list itself is as it should be.
async fn read_with(second_page: fn() -> Reply) {
    let file = File::new();
    let ledger = ledger(&file.url()).await;
    let owner = ledger.register_owner("worker", "here", 1, ledger.now()).await.unwrap();
    let rows: Vec<(&str, u64)> = (0..TEXTS as u64).map(|number| ("ACME", number)).collect();
    called(&ledger, &owner, &rows, 500, accepted).await;
    let at = ledger.now();
    let lines: Arc<[String]> = (0..TEXTS as u64).rev().map(|number| line("ACME", number, at)).collect();
    let server = Server::start(move |asked: &Asked| {
        let number: usize = asked_for(asked, "page").parse().unwrap();
        match number {
            _ if asked_for(asked, "sender") != "ACME" => page(&[]),
            2 => second_page(),
            _ => page_of(&lines[(number - 1) * 10..number * 10], PAGES, TEXTS),
        }
    })
    .await;
    let all_of_a_part =
        |states: &BTreeMap<RowState, u64>| states.get(&RowState::Sent) >= Some(&(TEXTS_A_COMMIT as u64));
    let states = reconcile(&ledger, &server, quick(), all_of_a_part).await;
    assert_eq!(states.values().sum::<u64>(), TEXTS as u64);
    assert!(states[&RowState::Accepted] >= 10, "the second page was not read: {states:?}");
    assert_eq!(ledger.cursor(&SenderId::parse("ACME").unwrap()).await.unwrap(), None, "the window counts as read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_applied_while_the_rest_is_awaited() {
    read_with(|| Reply::Hang).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_applied_and_the_window_does_not_count_although_its_last_page_is_refused() {
    read_with(|| Reply::Json(422, REFUSED.to_owned())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_applied_and_the_window_does_not_count_although_the_list_moved() {
    read_with(|| page_of(&[], PAGES, TEXTS + 1)).await;
}
