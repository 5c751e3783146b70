//! A ledger on a database of its own, and the steps of the protocol in few words.

use campaign::{
    CampaignId, ChunkId, ImportId, Msisdn, Outcome, RowId, RowState, SenderId, SmsId, TextId, matching::Listed,
    outcome::Ambiguous, resolve::HoldReason,
};
use jiff::{SignedDuration, Timestamp};
use ledger::{
    Applied, By, Claim, ClaimedBatch, Decided, Delivery, Encoding, ImportStart, Ledger, ListedText, NewCampaign,
    NewChunk, NewImport, NewRow, NewText, OpenAttempt, OwnerGuard, Recorded, RetryPolicy, SendingBatch, Start, Unsent,
    Verdict,
};
use sqlx::{AssertSqlSafe, PgPool, SqlitePool};
use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
};

/// Runs each of these bodies on both databases.
macro_rules! on_both {
    ($($body:ident)+) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $body() {
                super::$body(&crate::Bench::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $body() {
                super::$body(&crate::Bench::postgres().await).await;
            })+
        }
    };
}
pub(crate) use on_both;

pub(crate) const SHOP: &str = "SHOP";
pub(crate) const RETRY: RetryPolicy =
    RetryPolicy { first: SignedDuration::from_secs(2), longest: SignedDuration::from_secs(60) };
pub(crate) const FIRST_LOOK: SignedDuration = SignedDuration::from_secs(10);
pub(crate) const LEASE: SignedDuration = SignedDuration::from_secs(60);
pub(crate) const SEND_LIMIT: SignedDuration = SignedDuration::from_secs(75);
pub(crate) const REPLAY_AFTER: SignedDuration = SignedDuration::from_secs(20);

/// A moment of the test's time.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// Looks at the tables past the ledger.
pub(crate) enum Raw {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

pub(crate) struct Bench {
    pub(crate) ledger: Ledger,
    pub(crate) owner: OwnerGuard,
    pub(crate) raw: Raw,
    pub(crate) url: String,
    /// The latest time that any step was given, in milliseconds.
    pub(crate) latest: AtomicI64,
    pub(crate) before: Mutex<HashMap<i64, RowState>>,
    _ground: Ground,
}

#[expect(dead_code, reason = "held for their end alone")]
pub(crate) enum Ground {
    Dir(tempfile::TempDir),
    Database(testbed::Database),
}

/// A launched file of one campaign.
pub(crate) struct Launched {
    pub(crate) import: ImportId,
    pub(crate) id: CampaignId,
    pub(crate) chunks: Vec<ChunkId>,
}

impl Launched {
    pub(crate) fn chunk(&self) -> ChunkId {
        self.chunks[0]
    }

    /// The n-th row of the first chunk.
    pub(crate) fn row(&self, n: u16) -> RowId {
        self.chunks[0].row(n)
    }
}

pub(crate) fn msisdn(number: u64) -> Msisdn {
    Msisdn::from_digits(447_700_900_000 + number).unwrap()
}

pub(crate) fn sender(name: &str) -> SenderId {
    SenderId::parse(name).unwrap()
}

pub(crate) fn row(import: ImportId, row_number: u32, number: u64) -> NewRow {
    NewRow {
        row_number,
        state: RowState::Queued,
        reason: None,
        destination_raw: msisdn(number).to_string(),
        destination: Some(msisdn(number)),
        sender: Some(sender(SHOP)),
        text: Some(TextId::first_used(import, 2)),
        reference: None,
        scheduled_for: None,
        valid_until: None,
    }
}

pub(crate) fn text(import: ImportId, body: &str) -> NewText {
    NewText { id: TextId::first_used(import, 2), body: body.to_owned(), encoding: Encoding::Gsm7, segments: 1 }
}

pub(crate) fn listed(id: i64, number: u64, body: &str, second: i64, delivery: Option<Delivery>) -> ListedText {
    let text = Listed {
        sms_id: SmsId(id),
        destination: Some(msisdn(number)),
        text: body.into(),
        time: at(second).as_second(),
    };
    ListedText { text, delivery }
}

pub(crate) fn timed_out() -> Outcome {
    Outcome::Ambiguous { why: Ambiguous::TimedOut }
}

pub(crate) fn accepted() -> Outcome {
    Outcome::Accepted { sms_id: None }
}

impl Bench {
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("ledger.db").display());
        Self::at_url(url, Ground::Dir(dir)).await
    }

    pub(crate) async fn postgres() -> Self {
        let database = testbed::database();
        Self::at_url(database.url(), Ground::Database(database)).await
    }

    async fn at_url(url: String, ground: Ground) -> Self {
        let ledger = Ledger::open(&url).await.unwrap();
        ledger.migrate().await.unwrap();
        let owner = ledger.register_owner("test", "here", std::process::id(), at(0)).await.unwrap();
        let raw = Raw::open(&url).await;
        Self {
            ledger,
            owner,
            raw,
            url,
            latest: AtomicI64::new(at(0).as_millisecond()),
            before: Mutex::default(),
            _ground: ground,
        }
    }

    /// After every step: notes the time and checks what must hold at every commit.
    pub(crate) async fn stepped(&self, second: i64) {
        self.latest.fetch_max(at(second).as_millisecond(), SeqCst);
        self.check().await;
    }

    pub(crate) fn new_import(&self, name: &str, rows: usize, priority: i32) -> NewImport {
        NewImport {
            file_name: format!("{name}.csv"),
            sha256: format!("{name:0>64}"),
            bytes: 100,
            rows_in_file: rows as u64,
            again: false,
            launched_by: "ann".to_owned(),
            owner: self.owner.id(),
            campaigns: vec![NewCampaign { name: name.to_owned(), priority, ..NewCampaign::default() }],
        }
    }

    pub(crate) async fn begin(&self, new: &NewImport, second: i64) -> (ImportId, CampaignId) {
        match self.ledger.begin_import(new, at(second)).await.unwrap() {
            ImportStart::Load { import, campaigns } => (import, campaigns[0].0),
            other => panic!("{other:?}"),
        }
    }

    /// A campaign that says "hello" from the shop to these numbers, in one chunk.
    pub(crate) async fn campaign(&self, name: &str, numbers: &[u64]) -> Launched {
        self.campaign_with(name, "hello", numbers, |_| {}).await
    }

    pub(crate) async fn campaign_with(
        &self,
        name: &str,
        body: &str,
        numbers: &[u64],
        change: impl Fn(&mut NewRow),
    ) -> Launched {
        let (import, id) = self.begin(&self.new_import(name, numbers.len(), 0), 0).await;
        let chunk = ChunkId::nth(import, 0);
        let rows = (2..)
            .zip(numbers)
            .map(|(n, number)| {
                let mut row = row(import, n, *number);
                change(&mut row);
                row
            })
            .collect();
        let chunk_rows = NewChunk { id: chunk, campaign: id, texts: vec![text(import, body)], rows };
        self.ledger.append_chunks(import, &[chunk_rows], at(0)).await.unwrap();
        self.ledger.finish_import(import, at(0)).await.unwrap();
        self.stepped(0).await;
        Launched { import, id, chunks: vec![chunk] }
    }

    /// A campaign that says "hello" from the shop to these numbers, 500 to a chunk.
    pub(crate) async fn campaign_in_chunks(&self, name: &str, numbers: &[u64]) -> Launched {
        let (import, id) = self.begin(&self.new_import(name, numbers.len(), 0), 0).await;
        let mut chunks = Vec::new();
        for (nth, numbers) in (0u32..).zip(numbers.chunks(500)) {
            let rows = (nth * 500 + 2..).zip(numbers).map(|(n, number)| row(import, n, *number)).collect();
            let texts = if nth == 0 { vec![text(import, "hello")] } else { Vec::new() };
            chunks.push(NewChunk { id: ChunkId::nth(import, nth), campaign: id, texts, rows });
        }
        self.ledger.append_chunks(import, &chunks, at(0)).await.unwrap();
        self.ledger.finish_import(import, at(0)).await.unwrap();
        Launched { import, id, chunks: chunks.iter().map(|chunk| chunk.id).collect() }
    }

    pub(crate) async fn feed(&self, chunk: ChunkId, second: i64) -> bool {
        let fed = self.ledger.feed(&[chunk], REPLAY_AFTER, at(second)).await.unwrap();
        self.stepped(second).await;
        fed.contains(&chunk)
    }

    pub(crate) async fn claim(&self, chunk: ChunkId, second: i64) -> Claim {
        self.claim_as(&self.owner, chunk, second).await
    }

    pub(crate) async fn claim_as(&self, owner: &OwnerGuard, chunk: ChunkId, second: i64) -> Claim {
        let claim = self.ledger.claim(chunk, owner, 100, at(second)).await.unwrap();
        self.stepped(second).await;
        claim
    }

    /// Feeds and claims; the batches that the claim brought.
    pub(crate) async fn batches(&self, chunk: ChunkId, second: i64) -> Vec<ClaimedBatch> {
        self.batches_as(&self.owner, chunk, second).await
    }

    pub(crate) async fn batches_as(&self, owner: &OwnerGuard, chunk: ChunkId, second: i64) -> Vec<ClaimedBatch> {
        assert!(self.feed(chunk, second).await, "the chunk waits to be fed");
        match self.claim_as(owner, chunk, second).await {
            Claim::Batches(batches) => batches,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn start(&self, batch: ClaimedBatch, second: i64) -> Start {
        let start = self.ledger.start(batch, at(second)).await.unwrap();
        self.stepped(second).await;
        start
    }

    pub(crate) async fn started(&self, batch: ClaimedBatch, second: i64) -> SendingBatch {
        match self.start(batch, second).await {
            Start::Send(sending) => sending,
            Start::TakenBack => panic!("the batch was taken back"),
        }
    }

    /// Feeds, claims and starts a chunk that makes one batch.
    pub(crate) async fn sending(&self, chunk: ChunkId, second: i64) -> SendingBatch {
        self.sending_as(&self.owner, chunk, second).await
    }

    pub(crate) async fn sending_as(&self, owner: &OwnerGuard, chunk: ChunkId, second: i64) -> SendingBatch {
        let mut batches = self.batches_as(owner, chunk, second).await;
        assert_eq!(batches.len(), 1);
        self.started(batches.remove(0), second).await
    }

    pub(crate) async fn record(&self, batch: &SendingBatch, outcome: &Outcome, second: i64) -> Recorded {
        let recorded = self.ledger.record(batch, outcome, &RETRY, FIRST_LOOK, at(second)).await.unwrap();
        self.stepped(second).await;
        recorded
    }

    pub(crate) async fn take_back(&self, unsent: Unsent, second: i64) {
        self.ledger.take_back(unsent, "the test says so", at(second)).await.unwrap();
        self.stepped(second).await;
    }

    pub(crate) async fn finish(&self, chunk: ChunkId, second: i64) {
        self.ledger.finish_chunk(chunk, &self.owner, at(second)).await.unwrap();
        self.stepped(second).await;
    }

    pub(crate) async fn sweep_owners(&self, second: i64) -> u64 {
        let unknown = self.ledger.sweep_owners(LEASE, SEND_LIMIT, at(second)).await.unwrap();
        self.stepped(second).await;
        unknown
    }

    pub(crate) async fn apply(&self, listed: &[ListedText], second: i64) -> Applied {
        let applied = self
            .ledger
            .apply_listing(&sender(SHOP), &listed.iter().collect(), SignedDuration::ZERO, at(second))
            .await
            .unwrap();
        self.stepped(second).await;
        applied
    }

    pub(crate) async fn open(&self) -> Vec<OpenAttempt> {
        open_attempts(&self.ledger).await
    }

    pub(crate) async fn hold(&self, attempt: &OpenAttempt, absent: &[RowId], second: i64) -> u64 {
        let held = self.ledger.hold(attempt, absent, HoldReason::LostAndAbsent, at(second)).await.unwrap();
        self.stepped(second).await;
        held
    }

    pub(crate) async fn resend(&self, attempt: &OpenAttempt, absent: &[RowId], second: i64) -> (u64, u64) {
        let counts = self.ledger.resend(attempt, absent, at(second)).await.unwrap();
        self.stepped(second).await;
        counts
    }

    pub(crate) async fn decide(&self, of: &Launched, n: u16, verdict: Verdict, second: i64) -> bool {
        let decided = decide(&self.ledger, of.id, of.row(n), verdict, second).await;
        self.stepped(second).await;
        decided
    }

    /// A campaign of one chunk whose one attempt was lost without an answer; its rows are unknown.
    pub(crate) async fn lost(&self, name: &str, numbers: &[u64], second: i64) -> (Launched, OpenAttempt) {
        let launched = self.campaign(name, numbers).await;
        let batch = self.sending(launched.chunk(), second).await;
        self.record(&batch, &timed_out(), second + 1).await;
        self.finish(launched.chunk(), second + 1).await;
        let attempt = self.open().await.into_iter().find(|open| open.chunk == launched.chunk()).unwrap();
        (launched, attempt)
    }

    /// A campaign of one row that is held.
    pub(crate) async fn held(&self, name: &str, number: u64, second: i64) -> Launched {
        let (launched, attempt) = self.lost(name, &[number], second).await;
        assert_eq!(self.hold(&attempt, &[launched.row(0)], second + 2).await, 1);
        launched
    }

    /// The states of the rows of a campaign, in file order, e.g. `queued queued sent`.
    pub(crate) async fn states(&self, of: &Launched) -> String {
        let query = format!("SELECT state FROM all_rows WHERE campaign_id = {} ORDER BY id", of.id);
        self.raw.strings(&query).await.join(" ")
    }

    pub(crate) async fn reason(&self, of: &Launched, n: u16) -> String {
        let query = format!("SELECT coalesce(reason, '') FROM all_rows WHERE id = {}", of.row(n));
        self.raw.strings(&query).await.remove(0)
    }

    /// The state of a chunk and when it is due, in seconds of the test's time.
    pub(crate) async fn chunk(&self, chunk: ChunkId) -> (String, i64) {
        let state = self.raw.strings(&format!("SELECT state FROM chunks WHERE id = {chunk}")).await.remove(0);
        let due = self.raw.int(&format!("SELECT due_at FROM chunks WHERE id = {chunk}")).await;
        (state, due.div_euclid(1000) - at(0).as_second())
    }

    pub(crate) async fn set_campaign(&self, of: &Launched, state: &str) {
        self.raw.execute(&format!("UPDATE campaigns SET state = '{state}' WHERE id = {}", of.id)).await.unwrap();
    }

    pub(crate) async fn opt_out(&self, number: u64) {
        let statement = format!(
            "INSERT INTO suppressions (destination, sender, reason, added_by, added_at) VALUES ({}, '', 'x', 'x', 0)",
            msisdn(number)
        );
        self.raw.execute(&statement).await.unwrap();
    }
}

impl Raw {
    pub(crate) async fn open(url: &str) -> Self {
        if url.starts_with("sqlite:") {
            Self::Sqlite(SqlitePool::connect(url).await.unwrap())
        } else {
            Self::Postgres(PgPool::connect(url).await.unwrap())
        }
    }

    pub(crate) async fn strings(&self, query: &str) -> Vec<String> {
        let query = AssertSqlSafe(query.to_owned());
        match self {
            Self::Sqlite(pool) => sqlx::query_scalar(query).fetch_all(pool).await.unwrap(),
            Self::Postgres(pool) => sqlx::query_scalar(query).fetch_all(pool).await.unwrap(),
        }
    }

    pub(crate) async fn int(&self, query: &str) -> i64 {
        let query = AssertSqlSafe(query.to_owned());
        match self {
            Self::Sqlite(pool) => sqlx::query_scalar(query).fetch_one(pool).await.unwrap(),
            Self::Postgres(pool) => sqlx::query_scalar(query).fetch_one(pool).await.unwrap(),
        }
    }

    pub(crate) async fn execute(&self, statement: &str) -> Result<u64, sqlx::Error> {
        let statement = AssertSqlSafe(statement.to_owned());
        Ok(match self {
            Self::Sqlite(pool) => sqlx::query(statement).execute(pool).await?.rows_affected(),
            Self::Postgres(pool) => sqlx::query(statement).execute(pool).await?.rows_affected(),
        })
    }
}

/// Ann decides about one row; whether it was hers to decide.
pub(crate) async fn decide(ledger: &Ledger, of: CampaignId, row: RowId, verdict: Verdict, second: i64) -> bool {
    let ann = By { who: "ann", reason: Some("she knows") };
    let decided = ledger.decide_all(of, &[row], verdict, ann, at(second)).await.unwrap();
    matches!(&decided[..], [(_, Decided::Done)])
}

/// The attempts of all senders that are no longer being made and whose texts are not all found.
pub(crate) async fn open_attempts(ledger: &Ledger) -> Vec<OpenAttempt> {
    let mut open = Vec::new();
    for sender in ledger.open_senders().await.unwrap() {
        open.extend(ledger.unread_attempts(&sender, 1_000).await.unwrap());
        open.extend(ledger.due_attempts(&sender, at(1_000_000_000), 1_000).await.unwrap());
    }
    open.sort_by_key(|attempt| attempt.id);
    open
}
