//! Texts that the gateway sends late and lists late.

use crate::{
    house::{asked_for, called, line, page, quick, reconcile},
    support::{Asked, File, Server, ledger},
};
use campaign::{Outcome, RowState, SenderId, outcome::Ambiguous};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// Both within `settle`: what is listed with a time that sweeps have passed before it was visible is found all the same, or
/// `resend_once` would text its person twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_is_sent_late_and_listed_late_is_found() {
    let file = File::new();
    let ledger = ledger(&file.url()).await;
    let owner = ledger.register_owner("worker", "here", 1, ledger.now()).await.unwrap();
    let ended = ledger.now();
    called(&ledger, &owner, &[("ACME", 7)], 100, |_| Outcome::Ambiguous { why: Ambiguous::TimedOut }).await;
    let seconds = SignedDuration::from_secs;
    let (settle, sent, visible) = (seconds(6), ended + seconds(6), ended + seconds(10));
    // Texts of others moved the cursor past it meanwhile.
    let acme = SenderId::parse("ACME").unwrap();
    ledger.advance_cursor(&acme, (ended + seconds(60)).as_second(), seconds(1)).await.unwrap();
    let server = Server::start(move |asked: &Asked| {
        let time = sent.strftime("%Y-%m-%d %H:%M:%S").to_string();
        let within = asked_for(asked, "sent_since") <= time && time <= asked_for(asked, "sent_until");
        let shown = within && Timestamp::now() >= visible;
        page(&shown.then(|| line("ACME", 7, sent)).into_iter().collect::<Vec<_>>())
    })
    .await;
    let how = reconciler::Settings { settle: Some(settle), ..quick() };
    let is_over = |states: &BTreeMap<RowState, u64>| !states.contains_key(&RowState::Unknown);
    let states = reconcile(&ledger, &server, how, is_over).await;
    assert_eq!(states, BTreeMap::from([(RowState::Sent, 1)]));
}
