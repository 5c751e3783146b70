//! Loading a file: once, by one process, wholly.

use crate::{
    Bench, at,
    bench::{msisdn, row, sender, text},
    on_both,
};
use campaign::{CampaignId, ChunkId, ImportId, RowState, SenderId, TextId};
use ledger::{ErrorKind, ImportStart, NewChunk, NewRow, NewText, Totals};

on_both! {
    the_same_bytes_are_refused_and_the_earlier_launch_is_named
    launching_again_makes_a_second_campaign_of_another_name
    what_a_dead_loader_left_is_removed_and_loaded_anew
    a_file_that_a_living_process_loads_is_busy
    a_loader_that_was_silent_for_a_minute_is_fenced_out
    a_chunk_that_is_there_already_is_skipped
    a_file_is_active_once_all_of_its_rows_are_there
    an_abandoned_file_leaves_nothing
    each_row_comes_as_it_is_written
    blocks_of_a_file_may_be_added_at_once
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
    assert_eq!(bench.raw.int("SELECT count(*) FROM all_rows").await, 0);
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

/// What the columns of a row say.
fn said(chunk: ChunkId, campaign: CampaignId, nth: u16, row: &NewRow, now: i64) -> String {
    let or_none = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
    let waits = matches!(row.state, RowState::Queued | RowState::Scheduled);
    [
        chunk.row(nth).0.to_string(),
        campaign.0.to_string(),
        row.row_number.to_string(),
        row.state.name().to_owned(),
        or_none(row.reason.clone()),
        row.destination_raw.clone(),
        or_none(row.destination.map(|number| number.to_string())),
        or_none(row.sender.as_ref().map(SenderId::to_string)),
        or_none(row.text.map(|text| text.0.to_string())),
        or_none(row.reference.clone()),
        or_none(row.scheduled_for.map(|at| at.as_millisecond().to_string())),
        or_none(row.valid_until.map(|at| at.as_millisecond().to_string())),
        or_none(waits.then(|| now.to_string())),
        or_none((!waits).then(|| now.to_string())),
    ]
    .join(" ")
}

async fn each_row_comes_as_it_is_written(bench: &Bench) {
    let (import, campaign) = bench.begin(&bench.new_import("spring", 1_200, 0), 0).await;
    // Rows that are all alike, as many as a chunk holds; rows that share little; few that are alike, with others between them.
    let numbers: Vec<u64> = (0..1_200).collect();
    let mut chunks: Vec<NewChunk> =
        (0..).zip(numbers.chunks(500)).map(|(nth, numbers)| chunk(import, campaign, nth, numbers)).collect();
    for row in &mut chunks[0].rows {
        row.reference = Some(format!("order-{}", row.row_number));
    }
    let other_text = TextId::first_used(import, 700);
    chunks[1].texts.push(NewText { id: other_text, ..text(import, "hello you") });
    for (n, row) in (0u64..).zip(&mut chunks[1].rows) {
        row.destination_raw = match n % 5 {
            0 => format!("+{}", row.destination_raw),
            1 => format!("0{}", row.destination_raw),
            2 => format!("\t07700 90\\{n}"),
            3 => String::new(),
            _ => row.destination_raw.clone(),
        };
        row.sender = Some(sender(if n % 7 == 0 { "OTHER" } else { crate::SHOP }));
        row.text = row.text.filter(|_| n % 3 != 0).or(Some(other_text));
        row.reference = (n % 2 == 0).then(|| format!("é{n}\n"));
    }
    for (n, row) in (0u64..).zip(&mut chunks[2].rows) {
        match n % 4 {
            0 => row.scheduled_for = Some(at(600)),
            1 => row.valid_until = Some(at(900)),
            2 if n < 100 => (row.state, row.reason) = (RowState::Suppressed, Some("has\topted out".to_owned())),
            _ => {}
        }
        if row.scheduled_for.is_some() {
            row.state = RowState::Scheduled;
        }
    }
    chunks[2].rows[7] = NewRow {
        state: RowState::Invalid,
        reason: Some("no number".to_owned()),
        destination: None,
        sender: None,
        text: None,
        ..chunks[2].rows[7].clone()
    };
    bench.ledger.append_chunks(import, &chunks, at(1)).await.unwrap();
    let columns = [
        "id",
        "campaign_id",
        "row_number",
        "state",
        "reason",
        "destination_raw",
        "destination",
        "sender",
        "text_id",
        "reference",
        "scheduled_for",
        "valid_until",
        "queued_at",
        "final_at",
    ];
    let columns = columns.map(|column| format!("coalesce(CAST({column} AS TEXT), '-')")).join(" || ' ' || ");
    let stored = bench.raw.strings(&format!("SELECT {columns} FROM all_rows ORDER BY id")).await;
    let now = at(1).as_millisecond();
    let written: Vec<String> = chunks
        .iter()
        .flat_map(|chunk| (0..).zip(&chunk.rows).map(|(nth, row)| said(chunk.id, campaign, nth, row, now)))
        .collect();
    assert_eq!(stored.len(), written.len());
    for (stored, written) in stored.iter().zip(&written) {
        assert_eq!(stored, written);
    }
    assert_eq!(bench.raw.int("SELECT count(*) FROM all_rows WHERE updated_at <> queued_at").await, 0);
    assert_eq!(stored[0].split(' ').nth(6), Some(&*msisdn(0).to_string()));
    bench.ledger.finish_import(import, at(2)).await.unwrap();
    bench.stepped(2).await;
}

async fn blocks_of_a_file_may_be_added_at_once(bench: &Bench) {
    let numbers: Vec<u64> = (0..6_000).collect();
    let (import, campaign) = bench.begin(&bench.new_import("spring", numbers.len(), 0), 0).await;
    let chunks: Vec<NewChunk> =
        (0..).zip(numbers.chunks(500)).map(|(nth, numbers)| chunk(import, campaign, nth, numbers)).collect();
    let add = async |blocks: &[NewChunk]| {
        for block in blocks.rchunks(2) {
            bench.ledger.append_chunks(import, block, at(1)).await.unwrap();
        }
    };
    let (earlier, later) = chunks.split_at(6);
    tokio::join!(add(earlier), add(later));
    assert_eq!(bench.ledger.finish_import(import, at(2)).await.unwrap().sendable, 6_000);
    assert_eq!(bench.raw.int("SELECT count(DISTINCT id) FROM all_rows WHERE state = 'queued'").await, 6_000);
    bench.stepped(2).await;
}
