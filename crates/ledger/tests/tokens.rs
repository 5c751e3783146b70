//! The token row, on both databases.

#![expect(clippy::unwrap_used, reason = "clippy takes only the tests themselves for tests")]

use campaign::token::TokenPhase;
use jiff::SignedDuration;
use ledger::{Ledger, TokenClaim, TokenRow, TokenTrouble, TokenTroubleKind};

async fn open(url: &str) -> Ledger {
    let ledger = Ledger::open(url).await.unwrap();
    ledger.migrate().await.unwrap();
    ledger
}

fn claim(phase: TokenPhase, by: &str) -> TokenClaim<'_> {
    TokenClaim { phase, by, credentials: b"fingerprint", discard_pair: false }
}

async fn granted(ledger: &Ledger) -> TokenRow {
    let row = ledger.token().await.unwrap();
    let claimed = ledger.claim_token(&row, claim(TokenPhase::Granting, "a")).await.unwrap().unwrap();
    assert!(ledger.commit_token(&claimed, b"sealed", SignedDuration::from_secs(3600)).await.unwrap());
    ledger.token().await.unwrap()
}

async fn a_new_row_says_that_nothing_was_granted(url: &str) {
    let row = open(url).await.token().await.unwrap();
    assert_eq!((row.phase, row.generation, row.password_grants), (TokenPhase::None, 0, 0));
    assert!(row.sealed.is_none() && row.password_granted_at.is_none() && row.trouble.is_none());
    assert!(row.credentials.is_none());
}

async fn a_committed_pair_is_one_generation_on(url: &str) {
    let ledger = open(url).await;
    let row = granted(&ledger).await;
    assert_eq!((row.phase, row.generation, row.password_grants), (TokenPhase::Ready, 1, 1));
    assert_eq!((row.sealed.as_deref(), row.credentials.as_deref()), (Some(&b"sealed"[..]), Some(&b"fingerprint"[..])));
    let life = row.expires_at.unwrap().duration_since(row.issued_at.unwrap());
    assert!((3_599_000..=3_600_999).contains(&life.as_millis()), "{life}");
    assert!(row.password_granted_at.unwrap() <= row.read_at && row.phase_by.is_none());
}

async fn one_of_many_claims_comes_through(url: &str) {
    let ledger = open(url).await;
    let seen = granted(&ledger).await;
    let mut claims = Vec::new();
    for n in 0..16 {
        let (ledger, seen) = (ledger.clone(), seen.clone());
        claims.push(tokio::spawn(async move {
            let by = format!("process {n}");
            ledger.claim_token(&seen, claim(TokenPhase::Refreshing, &by)).await.unwrap().is_some()
        }));
    }
    let mut came_through = 0;
    for claim in claims {
        came_through += u32::from(claim.await.unwrap());
    }
    assert_eq!(came_through, 1);
    assert_eq!(ledger.token().await.unwrap().phase, TokenPhase::Refreshing);
}

async fn a_lost_claim_neither_commits_nor_releases(url: &str) {
    let ledger = open(url).await;
    let seen = granted(&ledger).await;
    let frozen = ledger.claim_token(&seen, claim(TokenPhase::Refreshing, "frozen")).await.unwrap().unwrap();
    let taken = ledger.claim_token(&frozen, claim(TokenPhase::Retrying, "taker")).await.unwrap().unwrap();
    assert!(!ledger.commit_token(&frozen, b"late", SignedDuration::from_secs(9)).await.unwrap());
    assert!(!ledger.release_token(&frozen, TokenPhase::Ready, None, None).await.unwrap());
    assert!(ledger.commit_token(&taken, b"new", SignedDuration::from_secs(9)).await.unwrap());
    assert!(!ledger.commit_token(&taken, b"again", SignedDuration::from_secs(9)).await.unwrap());
    let row = ledger.token().await.unwrap();
    assert_eq!((row.generation, row.sealed.as_deref()), (2, Some(&b"new"[..])));
}

async fn a_released_claim_says_why_and_the_next_pair_forgets_it(url: &str) {
    let ledger = open(url).await;
    let seen = granted(&ledger).await;
    let claimed = ledger.claim_token(&seen, claim(TokenPhase::Granting, "a")).await.unwrap().unwrap();
    assert!(claimed.password_granted_at >= seen.password_granted_at);
    let trouble = TokenTrouble { kind: TokenTroubleKind::Refused, message: "refused".to_owned() };
    let before = seen.password_granted_at;
    assert!(ledger.release_token(&claimed, TokenPhase::Burned, before, Some(&trouble)).await.unwrap());
    let row = ledger.token().await.unwrap();
    assert_eq!((row.phase, row.password_granted_at, row.trouble), (TokenPhase::Burned, before, Some(trouble.clone())));
    let row = ledger.token().await.unwrap();
    let claimed = ledger.claim_token(&row, claim(TokenPhase::Granting, "b")).await.unwrap().unwrap();
    assert!(ledger.release_token(&claimed, TokenPhase::Burned, before, None).await.unwrap());
    assert_eq!(ledger.token().await.unwrap().trouble, Some(trouble));
    assert_eq!(granted(&ledger).await.trouble, None);
}

async fn a_claim_may_forget_the_stored_pair(url: &str) {
    let ledger = open(url).await;
    let seen = granted(&ledger).await;
    let forget = TokenClaim { discard_pair: true, credentials: b"others", ..claim(TokenPhase::Granting, "a") };
    let claimed = ledger.claim_token(&seen, forget).await.unwrap().unwrap();
    assert!(claimed.sealed.is_none() && claimed.expires_at.is_none() && claimed.issued_at.is_none());
    assert_eq!(claimed.credentials.as_deref(), Some(&b"others"[..]));
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
    a_new_row_says_that_nothing_was_granted
    a_committed_pair_is_one_generation_on
    one_of_many_claims_comes_through
    a_lost_claim_neither_commits_nor_releases
    a_released_claim_says_why_and_the_next_pair_forgets_it
    a_claim_may_forget_the_stored_pair
}
