//! A ledger with calls that were made, a gateway that lists what a test says, and a reconciler between them.

use crate::support::{Asked, Reply, Server, budget, ok, settings};
use campaign::{ChunkId, Msisdn, Outcome, RowState, SenderId, SmsId, TextId, id::CHUNK_ROWS_MAX};
use gateway::Gateway;
use jiff::{SignedDuration, Timestamp};
use ledger::{
    Claim, Encoding, ImportStart, Ledger, NewCampaign, NewChunk, NewImport, NewRow, NewText, OwnerGuard, RetryPolicy,
    Start,
};
use reconciler::{Reconciler, Settings};
use std::{collections::BTreeMap, time::Duration};
use testbed::eventually_async;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const REFUSED: &str =
    r#"{"message":"The given data was invalid.","errors":{"sender":["The sender is unknown."]}}"#;

/// The gateway took the call; of a single text it told the id, which is the number.
pub(crate) fn accepted(numbers: &[u64]) -> Outcome {
    let sms_id = <[u64; 1]>::try_from(numbers).ok().map(|[number]| SmsId(number.cast_signed()));
    Outcome::Accepted { sms_id }
}

/// A campaign of these (sender, number) rows whose calls, each with its numbers, had these outcomes.
pub(crate) async fn called(
    ledger: &Ledger,
    owner: &OwnerGuard,
    rows: &[(&str, u64)],
    batch_len_max: usize,
    outcome: impl Fn(&[u64]) -> Outcome,
) {
    called_at(ledger, owner, rows, batch_len_max, outcome, ledger.now()).await;
}

/// Like [`called`], by calls that began then and ended now.
pub(crate) async fn called_at(
    ledger: &Ledger,
    owner: &OwnerGuard,
    rows: &[(&str, u64)],
    batch_len_max: usize,
    outcome: impl Fn(&[u64]) -> Outcome,
    now: Timestamp,
) {
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
    let mut new_rows = (2..).zip(rows).map(new_row);
    let mut chunks = Vec::new();
    for nth in 0..u32::try_from(rows.len().div_ceil(CHUNK_ROWS_MAX)).unwrap() {
        let rows = new_rows.by_ref().take(CHUNK_ROWS_MAX).collect();
        let id = ChunkId::nth(import, nth);
        let texts = texts.clone();
        chunks.push(NewChunk { id, campaign: campaigns[0].0, texts, rows });
    }
    ledger.append_chunks(import, &chunks, now).await.unwrap();
    ledger.finish_import(import, now).await.unwrap();
    let wait = SignedDuration::from_secs(1);
    let retry = RetryPolicy { first: wait, longest: wait };
    for chunk in chunks.into_iter().map(|chunk| chunk.id) {
        ledger.feed(&[chunk], SignedDuration::from_secs(20), now).await.unwrap();
        let Claim::Batches(batches) = ledger.claim(chunk, owner, batch_len_max, now).await.unwrap() else {
            panic!("it is claimed")
        };
        for batch in batches {
            let Start::Send(sending) = ledger.start(batch, now).await.unwrap() else { panic!("it is begun") };
            let number = |to: &Msisdn| to.as_u64() - destination(0).as_u64();
            let numbers: Vec<u64> = sending.batch().destinations.iter().map(number).collect();
            ledger.record(&sending, &outcome(&numbers), &retry, SignedDuration::ZERO, ledger.now()).await.unwrap();
        }
        ledger.finish_chunk(chunk, owner, now).await.unwrap();
    }
}

pub(crate) fn destination(number: u64) -> Msisdn {
    Msisdn::from_digits(447_700_900_000 + number).unwrap()
}

/// A line of the list, as the gateway writes it.
pub(crate) fn line(sender: &str, number: u64, at: Timestamp) -> String {
    format!(
        r#"{{"source":"{sender}","destination":"{}","text":"hello","type":"1","delivery_status":"1","read_status":"1","time":"{}","sms_id":{number}}}"#,
        destination(number),
        at.strftime("%Y-%m-%d %H:%M:%S")
    )
}

/// What a query of the list asks for under a name; a time is written as the list writes it.
pub(crate) fn asked_for(asked: &Asked, name: &str) -> String {
    let rest = asked.path.split_once(&format!("{name}=")).map_or("", |(_, rest)| rest);
    rest.split('&').next().unwrap_or_default().replace('+', " ").replace("%3A", ":")
}

/// An answer of the list with these lines.
pub(crate) fn page(lines: &[String]) -> Reply {
    page_of(lines, 1, lines.len())
}

/// One page of so many in all, of so many texts.
pub(crate) fn page_of(lines: &[String], last_page: usize, total: usize) -> Reply {
    let lines = lines.join(",");
    ok(&format!(
        r#"{{"status":"success","message":"success","data":{{"current_page":1,"data":[{lines}],"last_page":{last_page},"total":{total}}}}}"#
    ))
}

/// How a reconciler of a test works.
pub(crate) fn quick() -> Settings {
    Settings {
        first_look: SignedDuration::from_secs(1),
        every: Duration::from_millis(20),
        inbound_every: Duration::from_secs(3600),
        ..Settings::default()
    }
}

/// Runs a reconciler until the rows are so by state; answers with them.
pub(crate) async fn reconcile(
    ledger: &Ledger,
    server: &Server,
    how: Settings,
    until: impl Fn(&BTreeMap<RowState, u64>) -> bool,
) -> BTreeMap<RowState, u64> {
    let client = settings(&server.base_url);
    let gateway = Gateway::new(client, ledger.clone(), budget(), "test".to_owned()).unwrap();
    let owner = ledger.register_owner("reconciler", "here", 1, ledger.now()).await.unwrap();
    let stop = CancellationToken::new();
    let (reconciler, stopped) = (Reconciler::new(ledger.clone(), gateway, how), stop.clone());
    let running = tokio::spawn(async move { reconciler.run(&owner, stopped).await });
    let mut states = BTreeMap::new();
    eventually_async("the reconciler brings it about", DEADLINE, async || {
        states = ledger.campaign_summaries(None).await.unwrap().remove(0).states;
        until(&states)
    })
    .await;
    stop.cancel();
    running.await.unwrap();
    states
}
