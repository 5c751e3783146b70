//! What the gateway says of one sender or one text keeps no other from its end.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of tests for no tests")]

#[path = "../../gateway/tests/support/mod.rs"]
mod support;

use campaign::{ChunkId, Msisdn, Outcome, RowState, SenderId, SmsId, TextId};
use jiff::{SignedDuration, Timestamp};
use ledger::{
    Claim, Encoding, ImportStart, Ledger, NewCampaign, NewChunk, NewImport, NewRow, NewText, OwnerGuard, RetryPolicy,
    Start,
};
use reconciler::{Reconciler, Settings};
use std::time::Duration;
use support::{Asked, EMPTY_LIST, File, Reply, Server, budget, ledger, ok, settings};
use testbed::eventually_async;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);
const REFUSED: &str = r#"{"message":"The given data was invalid.","errors":{"sender":["The sender is unknown."]}}"#;

/// A campaign of these (sender, number) rows whose calls the gateway took; rows whose number is below 100 were told their
/// ids, which are the numbers.
async fn taken(ledger: &Ledger, owner: &OwnerGuard, rows: &[(&str, u64)], batch_len_max: usize) {
    let now = ledger.now();
    let new = NewImport {
        file_name: "a.csv".to_owned(),
        sha256: "0".repeat(64),
        bytes: 1,
        rows_in_file: rows.len() as u64,
        again: false,
        launched_by: "ann".to_owned(),
        owner: owner.id(),
        campaigns: vec![NewCampaign { name: "a".to_owned(), ..NewCampaign::default() }],
    };
    let ImportStart::Load { import, campaigns } = ledger.begin_import(&new, now).await.unwrap() else {
        panic!("it is new")
    };
    let text = TextId::first_used(import, 2);
    let chunk = ChunkId::nth(import, 0);
    let new_row = |(n, (sender, number)): (u32, &(&str, u64))| NewRow {
        row_number: n,
        state: RowState::Queued,
        reason: None,
        destination_raw: number.to_string(),
        destination: Some(destination(*number)),
        sender: Some(SenderId::parse(sender).unwrap()),
        text: Some(text),
        reference: None,
        scheduled_for: None,
        valid_until: None,
    };
    let texts = vec![NewText { id: text, body: "hello".to_owned(), encoding: Encoding::Gsm7, segments: 1 }];
    let new_rows = (2..).zip(rows).map(new_row).collect();
    let chunks = [NewChunk { id: chunk, campaign: campaigns[0].0, texts, rows: new_rows }];
    ledger.append_chunks(import, &chunks, now).await.unwrap();
    ledger.finish_import(import, now).await.unwrap();
    ledger.feed(&[chunk], SignedDuration::from_secs(20), now).await.unwrap();
    let Claim::Batches(batches) = ledger.claim(chunk, owner, batch_len_max, now).await.unwrap() else {
        panic!("it is claimed")
    };
    let wait = SignedDuration::from_secs(1);
    let retry = RetryPolicy { first: wait, longest: wait };
    for batch in batches {
        let Start::Send(sending) = ledger.start(batch, now).await.unwrap() else { panic!("it is begun") };
        let number = sending.batch().destinations[0].as_u64() - destination(0).as_u64();
        let sms_id = (number < 100).then(|| SmsId(number.cast_signed()));
        ledger.record(&sending, &Outcome::Accepted { sms_id }, &retry, SignedDuration::ZERO, now).await.unwrap();
    }
    ledger.finish_chunk(chunk, owner, now).await.unwrap();
}

fn destination(number: u64) -> Msisdn {
    Msisdn::from_digits(447_700_900_000 + number).unwrap()
}

/// A line of the list, as the gateway writes it.
fn line(sender: &str, number: u64, at: Timestamp) -> String {
    format!(
        r#"{{"source":"{sender}","destination":"{}","text":"hello","type":"1","delivery_status":"1","read_status":"1","time":"{}","sms_id":{number}}}"#,
        destination(number),
        at.strftime("%Y-%m-%d %H:%M:%S")
    )
}

/// Runs a reconciler until so many rows are `sent`.
async fn until_sent(ledger: &Ledger, server: &Server, sent: u64) {
    let gateway =
        gateway::Gateway::new(settings(&server.base_url), ledger.clone(), budget(), "test".to_owned()).unwrap();
    let owner = ledger.register_owner("reconciler", "here", 1, ledger.now()).await.unwrap();
    let settings = Settings {
        first_look: SignedDuration::from_secs(1),
        every: Duration::from_millis(20),
        inbound_every: Duration::from_secs(3600),
        ..Settings::default()
    };
    let stop = CancellationToken::new();
    let (reconciler, stopped) = (Reconciler::new(ledger.clone(), gateway, settings), stop.clone());
    let running = tokio::spawn(async move { reconciler.run(&owner, stopped).await });
    eventually_async("the others are sent", DEADLINE, async || {
        let summary = ledger.campaign_summaries(None).await.unwrap().remove(0);
        summary.states.get(&RowState::Sent).copied().unwrap_or(0) == sent
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_whose_list_is_refused_keeps_no_other_sender_waiting() {
    let file = File::new();
    let ledger = ledger(&file.url()).await;
    let owner = ledger.register_owner("worker", "here", 1, ledger.now()).await.unwrap();
    let sent_at = ledger.now();
    taken(&ledger, &owner, &[("ALPHA", 101), ("ALPHA", 102), ("OMEGA", 103), ("OMEGA", 104)], 100).await;
    let server = Server::start(move |asked: &Asked| {
        if asked.path.contains("sender=ALPHA") {
            Reply::Json(422, REFUSED.to_owned())
        } else if asked.path.contains("sender=OMEGA") {
            let lines = [line("OMEGA", 103, sent_at), line("OMEGA", 104, sent_at)].join(",");
            ok(&format!(
                r#"{{"status":"success","message":"success","data":{{"current_page":1,"data":[{lines}],"last_page":1,"total":2}}}}"#
            ))
        } else {
            ok(EMPTY_LIST)
        }
    })
    .await;
    until_sent(&ledger, &server, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_whose_status_cannot_be_read_keep_no_other_text_waiting() {
    let file = File::new();
    let ledger = ledger(&file.url()).await;
    let owner = ledger.register_owner("worker", "here", 1, ledger.now()).await.unwrap();
    let sent_at = ledger.now();
    let rows: Vec<(&str, u64)> = (1..=20).map(|number| ("ALPHA", number)).collect();
    taken(&ledger, &owner, &rows, 1).await;
    let server = Server::start(move |asked: &Asked| match asked.path.rsplit_once("detail/") {
        Some((_, "20")) => ok(&format!(r#"{{"status":"success","data":{}}}"#, line("ALPHA", 20, sent_at))),
        Some(_) => Reply::Json(422, REFUSED.to_owned()),
        None => ok(EMPTY_LIST),
    })
    .await;
    until_sent(&ledger, &server, 1).await;
}
