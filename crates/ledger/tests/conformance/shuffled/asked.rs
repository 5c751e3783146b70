//! Everything that can be asked of a ledger, in words.

use super::world::World;
use crate::{
    SHOP, at,
    bench::{REPLAY_AFTER, msisdn, sender},
};
use campaign::RowId;
use ledger::{Ledger, Recipient};
use serde::Serialize;
use std::fmt::{Debug, Write as _};

pub(super) fn text_of(thing: &impl Debug) -> String {
    format!("{thing:?}")
}

/// What has no `Debug`, since it is personal.
fn json_of(thing: &impl Serialize) -> String {
    serde_json::to_string(thing).unwrap()
}

/// The answers to all questions; `n` chooses what they are about.
pub(super) async fn ask(world: &World, ledger: &Ledger, n: usize) -> String {
    let now = at(world.now);
    let one = &world.campaigns[n % world.campaigns.len()];
    let shop = sender(SHOP);
    let mut said = String::new();
    let mut say = |question: &str, answer: String| writeln!(said, "{question}: {answer}").unwrap();

    let mut backlog = ledger.backlog(8, REPLAY_AFTER, now).await.unwrap();
    backlog.out.sort_by_key(|out| out.campaign);
    backlog.lost.sort_unstable();
    say("what can go next", text_of(&backlog));
    say("what is urgent", text_of(&ledger.most_urgent(one.chunk()).await.unwrap()));
    say("more to send", text_of(&ledger.more_to_send().await.unwrap()));
    say("what is left to do", text_of(&ledger.todo().await.unwrap()));

    let open = world.open(ledger).await;
    say("open attempts", text_of(&open));
    let mut absent = Vec::new();
    for attempt in &open {
        absent.push((attempt.id, ledger.absent_rows(attempt).await.unwrap()));
        say("later text", text_of(&ledger.later_text_listed(&attempt.sender, attempt.sending_at).await.unwrap()));
    }
    let rows: Vec<RowId> = absent.iter().flat_map(|(_, rows)| rows).copied().collect();
    say("absent", text_of(&absent));
    let mut numbers = ledger.destinations_of(&rows).await.unwrap();
    numbers.sort_unstable_by_key(|(row, _)| *row);
    say("their numbers", text_of(&numbers));
    say("recipients", text_of(&ledger.recipients_between(&shop, at(0), now).await.unwrap()));
    say("proven", text_of(&ledger.list_is_proven(&shop, 2).await.unwrap()));
    say("cursor", text_of(&ledger.cursor(&shop).await.unwrap()));
    let mut windows = ledger.due_windows(now).await.unwrap();
    windows.sort_unstable_by_key(|(_, window)| window.id);
    say("windows", text_of(&windows));
    let mut due = ledger.due_details(100, now).await.unwrap();
    due.sort_unstable_by_key(|due| due.row);
    say("details", text_of(&due));
    say("learned", text_of(&ledger.learned("list_lag_ms").await.unwrap()));
    say("listed", text_of(&ledger.learned("recipients_listed").await.unwrap()));

    let all: Vec<_> = (1..6).map(|number| (shop.clone(), msisdn(number))).collect();
    say("suppressed", text_of(&ledger.suppressed_among(&all).await.unwrap()));
    say("opt-outs", json_of(&ledger.opt_outs().await.unwrap()));
    say("inbox", json_of(&ledger.inbox(true).await.unwrap()));
    say("known inbound", text_of(&ledger.known_inbound(None, 0, now.as_second()).await.unwrap()));
    say("receivers", text_of(&ledger.receivers().await.unwrap()));
    say("sent lately", text_of(&ledger.sent_between(at(world.now - 20), now).await.unwrap()));
    let recipients: Vec<_> =
        (1..6).map(|number| Recipient { destination: msisdn(number), sender: &shop, text: "hello" }).collect();
    let mut texted = ledger.texted_since(&recipients, at(0)).await.unwrap();
    texted.sort_unstable_by_key(|texted| (texted.nth, texted.campaign, texted.at));
    say("texted", text_of(&texted));
    say("queued work", text_of(&ledger.queued_work(2, now).await.unwrap()));
    say("rates", text_of(&ledger.sender_rates().await.unwrap()));

    say("held", json_of(&ledger.held_rows(None).await.unwrap()));
    say("held between", text_of(&ledger.held_between(one.id, 2, 3).await.unwrap()));
    say("row 3", text_of(&ledger.row_numbered(one.id, 3).await.unwrap()));
    say("retriable", text_of(&ledger.retriable(one.id, None, now).await.unwrap()));
    say("summaries", json_of(&ledger.campaign_summaries(None).await.unwrap()));
    say("failures", json_of(&ledger.failure_reasons(None).await.unwrap()));
    say("log", json_of(&ledger.log(None).await.unwrap()));
    for name in ledger.campaign_names().await.unwrap() {
        say("its log", json_of(&ledger.log(Some(&name)).await.unwrap()));
        for row in 2..5 {
            say("story", json_of(&ledger.story(&name, row).await.unwrap()));
        }
        let mut results = ledger.results(&name, &[]).await.unwrap().unwrap();
        while let Some(page) = results.next_page().await.unwrap() {
            say("results", json_of(&page));
        }
    }
    let checks = ledger.verify().await.unwrap();
    assert!(checks.iter().all(|check| check.holds), "{checks:?}");
    say("verify", json_of(&checks));
    said
}
