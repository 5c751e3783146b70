//! Windows that follow each other.

use crate::{
    house::{REFUSED, accepted, asked_for, called_at, line, page, quick, reconcile},
    support::{Asked, File, Reply, Server, ledger},
};
use campaign::{RowState, SenderId};
use jiff::{SignedDuration, Timestamp};

/// The call lasted for twelve minutes: three windows of at most five minutes lead to its end.
const LONG: SignedDuration = SignedDuration::from_mins(12);

fn written(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_second_lies_between_two_windows_and_none_in_both() {
    let file = File::new();
    let ledger = ledger(&file.url()).await;
    let owner = ledger.register_owner("worker", "here", 1, ledger.now()).await.unwrap();
    let ended = ledger.now();
    called_at(&ledger, &owner, &[("ACME", 7), ("ACME", 8)], 100, accepted, ended - LONG).await;
    let server = Server::start(move |asked: &Asked| {
        let times = [(7, ended - LONG), (8, ended - SignedDuration::from_secs(1))];
        let (since, until) = (asked_for(asked, "sent_since"), asked_for(asked, "sent_until"));
        let within = |at: Timestamp| since <= written(at) && written(at) <= until;
        let shown = times.iter().filter(|(_, at)| within(*at)).map(|(number, at)| line("ACME", *number, *at));
        page(&shown.collect::<Vec<_>>())
    })
    .await;
    reconcile(&ledger, &server, quick(), |states| states.get(&RowState::Sent) == Some(&2)).await;
    let asked = server.asked.lock().unwrap().clone();
    let windows: Vec<(String, String)> = asked
        .iter()
        .filter(|asked| asked.path.contains("sender=ACME"))
        .map(|asked| (asked_for(asked, "sent_since"), asked_for(asked, "sent_until")))
        .collect();
    assert!(windows.len() >= 3, "{windows:?}");
    for pair in windows.windows(2) {
        let until: jiff::civil::DateTime = pair[0].1.parse().unwrap();
        let next = until.checked_add(SignedDuration::from_secs(1)).unwrap();
        assert_eq!(pair[1].0, next.strftime("%Y-%m-%d %H:%M:%S").to_string(), "{windows:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_counts_although_the_one_after_it_is_refused() {
    let file = File::new();
    let ledger = ledger(&file.url()).await;
    let owner = ledger.register_owner("worker", "here", 1, ledger.now()).await.unwrap();
    let began = ledger.now() - LONG;
    called_at(&ledger, &owner, &[("ACME", 7), ("ACME", 8)], 100, accepted, began).await;
    let server = Server::start(move |asked: &Asked| {
        let of_acme = asked.path.contains("sender=ACME");
        match of_acme && asked_for(asked, "sent_since") > written(began) {
            true => Reply::Json(422, REFUSED.to_owned()),
            false if of_acme => page(&[line("ACME", 7, began)]),
            false => page(&[]),
        }
    })
    .await;
    reconcile(&ledger, &server, quick(), |states| states.get(&RowState::Sent) == Some(&1)).await;
    let cursor = ledger.cursor(&SenderId::parse("ACME").unwrap()).await.unwrap();
    let refused = |(swept_to, _): (i64, SignedDuration)| swept_to >= (began + LONG).as_second();
    assert!(!cursor.is_some_and(refused), "what was refused counts as read");
}
