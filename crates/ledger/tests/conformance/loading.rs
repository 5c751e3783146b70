//! Loading a file: once, by one process, wholly.

use crate::{
    Bench, at,
    bench::{row, text},
    on_both,
};
use campaign::{CampaignId, ChunkId, ImportId, RowState};
use ledger::{ErrorKind, ImportStart, NewChunk, Totals};

on_both! {
    the_same_bytes_are_refused_and_the_earlier_launch_is_named
    launching_again_makes_a_second_campaign_of_another_name
    what_a_dead_loader_left_is_removed_and_loaded_anew
    a_file_that_a_living_process_loads_is_busy
    a_loader_that_was_silent_for_a_minute_is_fenced_out
    a_chunk_that_is_there_already_is_skipped
    a_file_is_active_once_all_of_its_rows_are_there
    an_abandoned_file_leaves_nothing
}

fn chunk(import: ImportId, campaign: CampaignId, ordinal: u32, numbers: &[u64]) -> NewChunk {
    let first = 2 + ordinal * 500;
    NewChunk {
        id: ChunkId::nth(import, ordinal),
        campaign,
        texts: vec![text(import, "hello")],
        rows: (first..).zip(numbers).map(|(n, number)| row(import, n, *number)).collect(),
    }
}

async fn the_same_bytes_are_refused_and_the_earlier_launch_is_named(bench: &Bench) {
    let first = bench.campaign("spring", &[1, 2]).await;
    match bench.ledger.begin_import(&bench.new_import("spring", 2, 0), at(9)).await.unwrap() {
        ImportStart::Launched { import, file_name, launched_at, launched_by, campaigns, unfinished } => {
            assert_eq!((import, &*file_name, launched_at), (first.import, "spring.csv", at(0)));
            assert_eq!((&*launched_by, campaigns, unfinished), ("ann", vec!["spring".to_owned()], true));
        }
        other => panic!("{other:?}"),
    }
}

async fn launching_again_makes_a_second_campaign_of_another_name(bench: &Bench) {
    bench.campaign("spring", &[1]).await;
    let mut again = bench.new_import("spring", 1, 0);
    again.again = true;
    match bench.ledger.begin_import(&again, at(9)).await.unwrap() {
        ImportStart::Load { import, campaigns } => {
            assert_eq!(campaigns[0].1, "spring-2");
            assert_eq!(bench.raw.int(&format!("SELECT launch FROM imports WHERE id = {import}")).await, 2);
        }
        other => panic!("{other:?}"),
    }
}

async fn what_a_dead_loader_left_is_removed_and_loaded_anew(bench: &Bench) {
    let other = bench.ledger.register_owner("test", "here", 1, at(0)).await.unwrap();
    let mut new = bench.new_import("spring", 3, 0);
    new.owner = other.id();
    let (old, campaign) = bench.begin(&new, 0).await;
    bench.ledger.append_chunks(old, &[chunk(old, campaign, 0, &[1, 2])], at(1)).await.unwrap();
    other.end(at(2)).await.unwrap();
    new.owner = bench.owner.id();
    let (import, _) = bench.begin(&new, 3).await;
    assert_ne!(import, old);
    assert_eq!(bench.raw.int("SELECT count(*) FROM messages").await, 0);
    assert_eq!(bench.raw.int("SELECT count(*) FROM texts").await, 0);
    assert_eq!(bench.raw.int("SELECT launch FROM imports").await, 1);
    let late = bench.ledger.append_chunks(old, &[chunk(old, campaign, 1, &[3])], at(4)).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Broken);
    bench.stepped(4).await;
}

async fn a_file_that_a_living_process_loads_is_busy(bench: &Bench) {
    bench.begin(&bench.new_import("spring", 1, 0), 0).await;
    let other = bench.ledger.register_owner("test", "here", 1, at(0)).await.unwrap();
    let mut new = bench.new_import("spring", 1, 0);
    new.owner = other.id();
    match bench.ledger.begin_import(&new, at(30)).await.unwrap() {
        ImportStart::Busy { file_name, launched_by } => {
            assert_eq!((&*file_name, &*launched_by), ("spring.csv", "ann"));
        }
        other => panic!("{other:?}"),
    }
}

async fn a_loader_that_was_silent_for_a_minute_is_fenced_out(bench: &Bench) {
    let (old, campaign) = bench.begin(&bench.new_import("spring", 1, 0), 0).await;
    let other = bench.ledger.register_owner("test", "here", 1, at(0)).await.unwrap();
    let mut new = bench.new_import("spring", 1, 0);
    new.owner = other.id();
    let (import, _) = bench.begin(&new, 61).await;
    assert_ne!(import, old);
    assert!(bench.ledger.append_chunks(old, &[chunk(old, campaign, 0, &[1])], at(62)).await.is_err());
    assert!(bench.ledger.finish_import(old, at(62)).await.is_err());
}

async fn a_chunk_that_is_there_already_is_skipped(bench: &Bench) {
    let (import, campaign) = bench.begin(&bench.new_import("spring", 3, 0), 0).await;
    let (one, two) = (chunk(import, campaign, 0, &[1, 2]), chunk(import, campaign, 1, &[3]));
    bench.ledger.append_chunks(import, std::slice::from_ref(&one), at(1)).await.unwrap();
    bench.ledger.append_chunks(import, &[one, two], at(2)).await.unwrap();
    assert_eq!(bench.ledger.finish_import(import, at(3)).await.unwrap().sendable, 3);
    bench.stepped(3).await;
}

async fn a_file_is_active_once_all_of_its_rows_are_there(bench: &Bench) {
    let (import, campaign) = bench.begin(&bench.new_import("spring", 5, 0), 0).await;
    let mut rows = chunk(import, campaign, 0, &[1, 2, 3, 4]);
    for (row, state) in rows.rows.iter_mut().zip([RowState::Invalid, RowState::Duplicate, RowState::Suppressed]) {
        row.state = state;
    }
    bench.ledger.append_chunks(import, &[rows], at(1)).await.unwrap();
    assert!(bench.ledger.finish_import(import, at(2)).await.is_err(), "a row is missing");
    assert!(bench.ledger.backlog(10, crate::bench::REPLAY_AFTER, at(2)).await.unwrap().waiting.is_empty());
    bench.ledger.append_chunks(import, &[chunk(import, campaign, 1, &[5])], at(3)).await.unwrap();
    let totals = Totals { sendable: 2, invalid: 1, duplicate: 1, suppressed: 1 };
    assert_eq!(bench.ledger.finish_import(import, at(4)).await.unwrap(), totals);
    assert_eq!(bench.ledger.finish_import(import, at(5)).await.unwrap(), totals, "harmless when repeated");
    assert_eq!(bench.raw.int("SELECT count(*) FROM events WHERE kind = 'launched'").await, 1);
    assert_eq!(bench.ledger.backlog(10, crate::bench::REPLAY_AFTER, at(5)).await.unwrap().waiting.len(), 1);
    bench.stepped(5).await;
}

async fn an_abandoned_file_leaves_nothing(bench: &Bench) {
    let (import, campaign) = bench.begin(&bench.new_import("spring", 1, 0), 0).await;
    bench.ledger.append_chunks(import, &[chunk(import, campaign, 0, &[1])], at(1)).await.unwrap();
    bench.ledger.abandon_import(import).await.unwrap();
    assert_eq!(bench.raw.int("SELECT count(*) FROM imports").await, 0);
    let launched = bench.campaign("summer", &[1]).await;
    bench.ledger.abandon_import(launched.import).await.unwrap();
    assert_eq!(bench.states(&launched).await, "queued", "a launched file is never removed");
}
