//! What people read of the ledger, on both databases.

#![expect(clippy::unwrap_used, reason = "clippy takes only the tests themselves for tests")]

use campaign::{ChunkId, Msisdn, Outcome, RowState, SenderId, SmsId, TextId, outcome::Ambiguous};
use jiff::{SignedDuration, Timestamp};
use ledger::{
    Claim, Encoding, ImportStart, Ledger, NewCampaign, NewChunk, NewImport, NewRow, NewText, OwnerGuard,
    REPORT_COLUMNS, ReportRow, RetryPolicy, Start,
};

const NOW: &str = "2026-03-01T09:00:00Z";

/// A ledger with the campaigns `spring` (rows 2 to 5, of which 4 is invalid and 5 a duplicate) and `autumn` (row 6).
struct Loaded {
    ledger: Ledger,
    owner: OwnerGuard,
    now: Timestamp,
    chunks: [ChunkId; 2],
}

async fn loaded(url: &str) -> Loaded {
    let ledger = Ledger::open(url).await.unwrap();
    ledger.migrate().await.unwrap();
    let now: Timestamp = NOW.parse().unwrap();
    let owner = ledger.register_owner("test", "here", std::process::id(), now).await.unwrap();
    let campaigns = ["spring", "autumn"].map(|name| NewCampaign { name: name.to_owned(), ..NewCampaign::default() });
    let import = NewImport {
        file_name: "customers.csv".to_owned(),
        sha256: "00".to_owned(),
        bytes: 100,
        rows_in_file: 5,
        again: false,
        launched_by: "ada@here".to_owned(),
        owner: owner.id(),
        campaigns: campaigns.to_vec(),
    };
    let ImportStart::Load { import, campaigns } = ledger.begin_import(&import, now).await.unwrap() else {
        panic!("the file is new");
    };
    let text = TextId::first_used(import, 2);
    let chunks = [ChunkId::nth(import, 0), ChunkId::nth(import, 1)];
    let texts = vec![NewText { id: text, body: "=1+1".to_owned(), encoding: Encoding::Gsm7, segments: 1 }];
    let row = |number: u32, state: RowState, reason: Option<&str>| NewRow {
        row_number: number,
        state,
        reason: reason.map(str::to_owned),
        destination_raw: format!("07700 90000{number}"),
        destination: (state != RowState::Invalid)
            .then(|| Msisdn::from_digits(447_700_900_000 + u64::from(number)).unwrap()),
        sender: Some(SenderId::parse("ACME").unwrap()),
        text: Some(text),
        reference: Some(format!("customer {number}")),
        scheduled_for: None,
        valid_until: None,
    };
    let spring = vec![
        row(2, RowState::Queued, None),
        row(3, RowState::Queued, None),
        row(4, RowState::Invalid, Some("the number is too short")),
        row(5, RowState::Duplicate, Some("same number as row 2")),
    ];
    let autumn = vec![row(6, RowState::Queued, None)];
    let made = [
        NewChunk { id: chunks[0], campaign: campaigns[0].0, texts, rows: spring },
        NewChunk { id: chunks[1], campaign: campaigns[1].0, texts: Vec::new(), rows: autumn },
    ];
    ledger.append_chunks(import, &made, now).await.unwrap();
    ledger.finish_import(import, now).await.unwrap();
    Loaded { ledger, owner, now, chunks }
}

impl Loaded {
    /// Sends one chunk in one call with this outcome.
    async fn sent(&self, chunk: usize, outcome: Outcome) {
        let (ledger, now) = (&self.ledger, self.now);
        ledger.feed(&[self.chunks[chunk]], SignedDuration::from_secs(20), now).await.unwrap();
        let Claim::Batches(batches) = ledger.claim(self.chunks[chunk], &self.owner, 100, now).await.unwrap() else {
            panic!("nobody else has the chunk");
        };
        for batch in batches {
            let Start::Send(sending) = ledger.start(batch, now).await.unwrap() else { panic!("it is still ours") };
            let retry = RetryPolicy { first: SignedDuration::from_secs(1), longest: SignedDuration::from_secs(1) };
            ledger.record(&sending, &outcome, &retry, SignedDuration::from_secs(1), now).await.unwrap();
        }
        ledger.finish_chunk(self.chunks[chunk], &self.owner, now).await.unwrap();
    }

    async fn rows(&self, name: &str, states: &[RowState]) -> Vec<ReportRow> {
        let mut results = self.ledger.results(name, states).await.unwrap().unwrap();
        let mut rows = Vec::new();
        while let Some(page) = results.next_page().await.unwrap() {
            rows.extend(page);
        }
        rows
    }

    async fn failing_checks(&self) -> Vec<String> {
        let checks = self.ledger.verify().await.unwrap();
        checks.into_iter().filter(|check| !check.holds).map(|check| check.check).collect()
    }
}

/// Changes the ledger behind its back, as nothing of ours may.
async fn tamper(url: &str, statement: &'static str) {
    if let Some(path) = url.strip_prefix("sqlite://") {
        let pool = sqlx::SqlitePool::connect(path).await.unwrap();
        sqlx::query(statement).execute(&pool).await.unwrap();
        pool.close().await;
    } else {
        let pool = sqlx::PgPool::connect(url).await.unwrap();
        sqlx::query(statement).execute(&pool).await.unwrap();
        pool.close().await;
    }
}

async fn a_summary_counts_each_campaigns_rows_by_state(url: &str) {
    let loaded = loaded(url).await;
    let summaries = loaded.ledger.campaign_summaries(None).await.unwrap();
    let names: Vec<_> =
        summaries.iter().map(|summary| (summary.campaign.as_str(), summary.rows, summary.open())).collect();
    assert_eq!(names, [("spring", 4, 2), ("autumn", 1, 1)]);
    assert_eq!((summaries[0].count(RowState::Queued), summaries[0].count(RowState::Invalid)), (2, 1));
    assert_eq!(summaries[0].file_name, "customers.csv");
    assert_eq!(summaries[0].waiting.len(), 1, "final rows wait for nothing");
    let one = loaded.ledger.campaign_summaries(Some("autumn")).await.unwrap();
    assert_eq!(one.len(), 1);
    assert!(loaded.ledger.campaign_summaries(Some("winter")).await.unwrap().is_empty());
    assert_eq!(loaded.ledger.campaign_names().await.unwrap(), ["spring", "autumn"]);
}

async fn a_report_has_the_columns_of_the_view_and_a_line_for_every_row(url: &str) {
    let loaded = loaded(url).await;
    assert_eq!(loaded.ledger.view_columns("delivery_reports").await.unwrap(), REPORT_COLUMNS);
    let rows = loaded.rows("spring", &[]).await;
    let told: Vec<_> = rows.iter().map(|row| (row.row_number, row.state)).collect();
    use RowState::{Duplicate, Invalid, Queued};
    assert_eq!(told, [(2, Queued), (3, Queued), (4, Invalid), (5, Duplicate)]);
    assert_eq!(rows[0].destination.as_deref(), Some("447700900002"));
    assert_eq!((rows[2].destination.as_deref(), rows[2].reason.as_deref()), (None, Some("the number is too short")));
    let json = serde_json::to_value(&rows[0]).unwrap();
    let columns: Vec<_> = REPORT_COLUMNS.iter().filter(|column| json.get(**column).is_some()).collect();
    assert_eq!(columns.len(), REPORT_COLUMNS.len(), "the JSON has the same names");
    assert_eq!(json["queued_at"], "2026-03-01T09:00:00.000Z");
    assert!(loaded.ledger.results("winter", &[]).await.unwrap().is_none());
}

async fn a_report_of_some_states_leaves_the_others_out(url: &str) {
    let loaded = loaded(url).await;
    let rows = loaded.rows("spring", &[RowState::Invalid, RowState::Duplicate]).await;
    assert_eq!(rows.iter().map(|row| row.row_number).collect::<Vec<_>>(), [4, 5]);
    assert!(loaded.rows("autumn", &[RowState::Invalid]).await.is_empty());
}

async fn failure_reasons_are_counted_by_state_and_reason(url: &str) {
    let loaded = loaded(url).await;
    let reasons = loaded.ledger.failure_reasons(Some("spring")).await.unwrap();
    let told: Vec<_> = reasons.iter().map(|reason| (reason.state, reason.reason.as_str(), reason.rows)).collect();
    assert_eq!(
        told,
        [(RowState::Duplicate, "same number as row 2", 1), (RowState::Invalid, "the number is too short", 1)]
    );
}

async fn a_story_has_the_calls_that_were_made_for_the_row_and_no_others(url: &str) {
    let loaded = loaded(url).await;
    loaded.sent(1, Outcome::Accepted { sms_id: Some(SmsId(7)) }).await;
    loaded.sent(0, Outcome::Ambiguous { why: Ambiguous::TimedOut }).await;
    let story = loaded.ledger.story("spring", 3).await.unwrap().unwrap();
    assert_eq!((story.row.state, story.file_name.as_str()), (RowState::Unknown, "customers.csv"));
    assert_eq!(story.attempts.len(), 1);
    assert_eq!((story.attempts[0].sent_via.as_str(), story.attempts[0].batch_len), ("bulk", 2));
    assert!(story.attempts[0].outcome.is_some());
    let story = loaded.ledger.story("autumn", 6).await.unwrap().unwrap();
    assert_eq!((story.row.gateway_sms_id, story.row.id_source.as_deref()), (Some(7), Some("response")));
    assert_eq!((story.attempts.len(), story.attempts[0].sent_via.as_str()), (1, "send"));
    assert!(loaded.ledger.story("spring", 4).await.unwrap().unwrap().attempts.is_empty());
    assert!(loaded.ledger.story("spring", 6).await.unwrap().is_none(), "row 6 is another campaign's");
    assert!(loaded.ledger.story("winter", 2).await.unwrap().is_none());
}

async fn a_held_row_is_listed_with_what_is_known_about_it(url: &str) {
    let loaded = loaded(url).await;
    loaded.sent(0, Outcome::Ambiguous { why: Ambiguous::TimedOut }).await;
    assert!(loaded.ledger.held_rows(None).await.unwrap().is_empty());
    tamper(url, "UPDATE messages SET state = 'held', held = 1, live = 1, reason = 'never listed' WHERE row_number = 3")
        .await;
    let held = loaded.ledger.held_rows(None).await.unwrap();
    assert_eq!((held.len(), held[0].row_number, held[0].reason.as_str()), (1, 3, "never listed"));
    assert!(held[0].outcome.is_some());
    assert_eq!(loaded.ledger.held_rows(Some("autumn")).await.unwrap().len(), 0);
    assert_eq!(loaded.ledger.trouble().await.unwrap().held, 1);
}

async fn verify_finds_a_balanced_ledger_balanced_at_every_step(url: &str) {
    let loaded = loaded(url).await;
    assert_eq!(loaded.failing_checks().await, [""; 0]);
    loaded.sent(1, Outcome::Accepted { sms_id: Some(SmsId(7)) }).await;
    loaded.sent(0, Outcome::Ambiguous { why: Ambiguous::TimedOut }).await;
    assert_eq!(loaded.failing_checks().await, [""; 0]);
    let checks = loaded.ledger.verify().await.unwrap();
    assert_eq!(checks[0].found, "5 in the file = 5 = 1 invalid + 1 duplicate + 2 unknown + 1 accepted");
}

async fn verify_finds_a_row_that_is_gone(url: &str) {
    let loaded = loaded(url).await;
    tamper(url, "DELETE FROM messages WHERE row_number = 4").await;
    assert_eq!(loaded.failing_checks().await, ["customers.csv: the rows balance"]);
}

async fn verify_finds_a_pack_that_holds_other_rows_than_it_says(url: &str) {
    let loaded = loaded(url).await;
    tamper(url, "UPDATE packs SET queued = queued + 1").await;
    assert_eq!(loaded.failing_checks().await, ["every pack holds as many rows as it says"]);
}

async fn verify_finds_a_sending_row_without_an_open_attempt(url: &str) {
    let loaded = loaded(url).await;
    loaded.sent(0, Outcome::Ambiguous { why: Ambiguous::TimedOut }).await;
    tamper(url, "UPDATE attempts SET state = 'released'").await;
    assert_eq!(loaded.failing_checks().await, ["every row that is being sent or looked for has an open attempt"]);
}

async fn verify_finds_a_row_that_two_calls_may_have_sent(url: &str) {
    let loaded = loaded(url).await;
    loaded.sent(0, Outcome::Ambiguous { why: Ambiguous::TimedOut }).await;
    tamper(
        url,
        "INSERT INTO attempts (campaign_id, chunk_id, sender, text_id, sent_via, state, owner_id, row_ids, recipients, formed_at,
            first_row, last_row)
         SELECT campaign_id, chunk_id, sender, text_id, sent_via, 'settled', owner_id, row_ids, recipients, formed_at, first_row, last_row
         FROM attempts",
    )
    .await;
    assert_eq!(loaded.failing_checks().await, ["no row was sent again unless that was decided"]);
    tamper(url, "UPDATE messages SET resends = 1").await;
    assert_eq!(loaded.failing_checks().await, [""; 0]);
}

async fn verify_finds_a_row_that_waits_in_a_chunk_that_is_done(url: &str) {
    let loaded = loaded(url).await;
    tamper(url, "UPDATE chunks SET state = 'done'").await;
    assert_eq!(loaded.failing_checks().await, ["no row waits in a chunk that is done"]);
}

async fn a_running_process_is_listed_until_it_ends(url: &str) {
    let loaded = loaded(url).await;
    let owners = loaded.ledger.live_owners().await.unwrap();
    assert_eq!((owners.len(), owners[0].kind.as_str(), owners[0].host.as_str()), (1, "test", "here"));
    let Loaded { ledger, owner, now, .. } = loaded;
    owner.end(now).await.unwrap();
    assert!(ledger.live_owners().await.unwrap().is_empty());
}

macro_rules! on_both {
    ($($name:ident)+) => {
        mod on_sqlite {$(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let directory = tempfile::tempdir().unwrap();
                super::$name(&format!("sqlite://{}/ledger.db", directory.path().display())).await;
            }
        )+}
        mod on_postgres {$(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let database = testbed::database();
                super::$name(&database.url()).await;
            }
        )+}
    };
}

on_both! {
    a_summary_counts_each_campaigns_rows_by_state
    a_report_has_the_columns_of_the_view_and_a_line_for_every_row
    a_report_of_some_states_leaves_the_others_out
    failure_reasons_are_counted_by_state_and_reason
    a_story_has_the_calls_that_were_made_for_the_row_and_no_others
    a_held_row_is_listed_with_what_is_known_about_it
    verify_finds_a_balanced_ledger_balanced_at_every_step
    verify_finds_a_row_that_is_gone
    verify_finds_a_pack_that_holds_other_rows_than_it_says
    verify_finds_a_sending_row_without_an_open_attempt
    verify_finds_a_row_that_two_calls_may_have_sent
    verify_finds_a_row_that_waits_in_a_chunk_that_is_done
    a_running_process_is_listed_until_it_ends
}
