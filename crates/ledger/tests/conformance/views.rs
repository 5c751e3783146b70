//! The contract for analysts, and the record that only grows.

use crate::{Bench, at, on_both};
use campaign::{Outcome, outcome::Ambiguous};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

on_both! {
    the_views_have_the_columns_of_the_contract
    a_campaigns_counts_sum_up_to_its_rows
    no_row_is_counted_twice_or_left_out_while_it_is_claimed
    a_row_stands_as_its_call_does
    events_are_only_ever_added
}

const DELIVERY_REPORTS: &str = "campaign, row_number, reference, destination_raw, destination, sender, text, encoding, \
    segments, state, reason, attempts, sent_via, gateway_sms_id, gateway_status, id_source, scheduled_for, valid_until, \
    queued_at, attempted_at, accepted_at, checked_at, final_at, updated_at";

async fn the_views_have_the_columns_of_the_contract(bench: &Bench) {
    assert_eq!(bench.ledger.view_columns("delivery_reports").await.unwrap().join(", "), DELIVERY_REPORTS);
    assert_eq!(ledger::REPORT_COLUMNS.join(", "), DELIVERY_REPORTS);
    let summary = bench.ledger.view_columns("campaign_summary").await.unwrap();
    for state in campaign::RowState::ALL {
        assert!(summary.iter().any(|column| column == state.name()), "{state} is not counted");
    }
}

async fn no_row_is_counted_twice_or_left_out_while_it_is_claimed(bench: &Bench) {
    let numbers: Vec<u64> = (1..=5_000).collect();
    let one = bench.campaign_in_chunks("one", &numbers).await;
    let is_claimed = AtomicBool::new(false);
    let claims = async {
        for chunk in &one.chunks {
            bench.feed(*chunk, 1).await;
            bench.ledger.claim(*chunk, &bench.owner, 100, at(1)).await.unwrap();
        }
        is_claimed.store(true, SeqCst);
    };
    let counts = async {
        while !is_claimed.load(SeqCst) {
            let summary = bench.ledger.campaign_summaries(Some("one")).await.unwrap().remove(0);
            assert_eq!(summary.rows, 5_000, "{:?}", summary.states);
        }
    };
    tokio::join!(claims, counts);
}

async fn a_campaigns_counts_sum_up_to_its_rows(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2, 3]).await;
    bench.opt_out(3).await;
    bench.batches(one.chunk(), 1).await;
    let count = async |column: &str| bench.raw.int(&format!("SELECT {column} FROM campaign_summary")).await;
    assert_eq!((count("rows").await, count("sending").await, count("suppressed").await), (3, 2, 1));
    let sum = campaign::RowState::ALL.map(|state| state.name().to_owned()).join(" + ");
    assert_eq!(count(&sum).await, 3);
    assert_eq!(bench.raw.int("SELECT count(*) FROM delivery_reports WHERE campaign = 'one'").await, 3);
    assert_eq!(bench.raw.strings("SELECT reason FROM failure_reasons").await, ["opted out before it was sent"]);
    assert!(bench.ledger.verify().await.unwrap().iter().all(|check| check.holds));
}

async fn a_row_stands_as_its_call_does(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    let told = async || {
        let columns =
            ["state", "reason", "accepted_at", "updated_at"].map(|name| format!("coalesce(CAST({name} AS TEXT), '-')"));
        let row = bench.raw.strings(&format!("SELECT {} FROM all_rows", columns.join(" || ' ' || "))).await.remove(0);
        let state = row.split(' ').next().unwrap();
        assert_eq!(bench.states(&one).await, state);
        assert_eq!(bench.raw.strings("SELECT state FROM delivery_reports").await, [state]);
        assert_eq!(bench.raw.int(&format!("SELECT {state} FROM campaign_summary")).await, 1);
        let summary = bench.ledger.campaign_summaries(None).await.unwrap().remove(0);
        assert_eq!(summary.count(state.parse().unwrap()), 1);
        assert!(bench.ledger.verify().await.unwrap().iter().all(|check| check.holds));
        row
    };
    let ms = |second| at(second).as_millisecond();
    let batch = bench.batches(one.chunk(), 1).await.remove(0);
    assert_eq!(told().await, format!("sending - - {}", ms(1)));
    let sending = bench.started(batch, 2).await;
    assert_eq!(told().await, format!("sending - - {}", ms(1)));
    bench.record(&sending, &Outcome::Ambiguous { why: Ambiguous::TimedOut }, 3).await;
    assert_eq!(told().await, format!("unknown the gateway did not answer in time - {}", ms(3)));
    assert_eq!(bench.raw.int("SELECT count(*) FROM hourly_throughput").await, 0);
    // The answer came after all.
    bench.record(&sending, &Outcome::Accepted { sms_id: None }, 4).await;
    assert_eq!(told().await, format!("accepted - {} {}", ms(4), ms(4)));
    assert_eq!(bench.raw.int("SELECT accepted FROM hourly_throughput").await, 1);
    // That the gateway took it is known of a row that is not found, too.
    let attempt = bench.open().await.remove(0);
    assert_eq!(bench.hold(&attempt, &[one.row(0)], 5).await, 1);
    assert!(told().await.starts_with("held "));
    assert_eq!(bench.raw.int("SELECT accepted_at FROM all_rows").await, ms(4));
}

async fn events_are_only_ever_added(bench: &Bench) {
    bench.campaign("one", &[1]).await;
    assert!(bench.raw.execute("UPDATE events SET who = 'nobody'").await.is_err());
    assert!(bench.raw.execute("DELETE FROM events").await.is_err());
    assert_eq!(bench.raw.int("SELECT count(*) FROM events").await, 1);
}
