//! What the gateway says of one sender or one text keeps no other from its end.

use crate::{
    house::{REFUSED, accepted, called, line, page, quick, reconcile},
    support::{Asked, EMPTY_LIST, File, Reply, Server, ledger, ok},
};
use campaign::RowState;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_whose_list_is_refused_keeps_no_other_sender_waiting() {
    let file = File::new();
    let ledger = ledger(&file.url()).await;
    let owner = ledger.register_owner("worker", "here", 1, ledger.now()).await.unwrap();
    let sent_at = ledger.now();
    let rows = [("ALPHA", 101), ("ALPHA", 102), ("OMEGA", 103), ("OMEGA", 104)];
    called(&ledger, &owner, &rows, 100, accepted).await;
    let server = Server::start(move |asked: &Asked| {
        if asked.path.contains("sender=ALPHA") {
            Reply::Json(422, REFUSED.to_owned())
        } else if asked.path.contains("sender=OMEGA") {
            page(&[line("OMEGA", 103, sent_at), line("OMEGA", 104, sent_at)])
        } else {
            ok(EMPTY_LIST)
        }
    })
    .await;
    reconcile(&ledger, &server, quick(), |states| states.get(&RowState::Sent) == Some(&2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_whose_status_cannot_be_read_keep_no_other_text_waiting() {
    let file = File::new();
    let ledger = ledger(&file.url()).await;
    let owner = ledger.register_owner("worker", "here", 1, ledger.now()).await.unwrap();
    let sent_at = ledger.now();
    let rows: Vec<(&str, u64)> = (1..=20).map(|number| ("ALPHA", number)).collect();
    called(&ledger, &owner, &rows, 1, accepted).await;
    let server = Server::start(move |asked: &Asked| match asked.path.rsplit_once("detail/") {
        Some((_, "20")) => ok(&format!(r#"{{"status":"success","data":{}}}"#, line("ALPHA", 20, sent_at))),
        Some(_) => Reply::Json(422, REFUSED.to_owned()),
        None => ok(EMPTY_LIST),
    })
    .await;
    reconcile(&ledger, &server, quick(), |states| states.get(&RowState::Sent) == Some(&1)).await;
}
