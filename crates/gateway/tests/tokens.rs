//! One token for any number of processes, over a real socket and both databases.

#![expect(clippy::unwrap_used, reason = "clippy takes only the tests themselves for tests")]

mod support;

use campaign::token::TokenPhase;
use gateway::{Budget, CallClass, CallError, CallErrorKind, Gateway, ListQuery};
use ledger::{Ledger, TokenClaim};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use support::{EMPTY_LIST, File, Reply, Server, client, ledger, ok, settings};

const WAIT: Duration = Duration::from_secs(20);

async fn list(gateway: &Gateway) -> Result<(), CallError> {
    gateway.list(CallClass::Status, &ListQuery::default()).await.map(drop)
}

async fn start() -> (Server, File) {
    (Server::start(|_| ok(EMPTY_LIST)).await, File::new())
}

/// A claim of a process that is no more.
async fn died_while(ledger: &Ledger, phase: TokenPhase) {
    let row = ledger.token().await.unwrap();
    let credentials = row.credentials.clone().unwrap();
    let claim = TokenClaim { phase, by: "dead", credentials: &credentials, discard_pair: false };
    ledger.claim_token(&row, claim).await.unwrap().unwrap();
}

async fn first_start_makes_one_password_grant(url: &str) {
    let server = Server::start(|_| ok(EMPTY_LIST)).await;
    let settings = settings(&server.base_url);
    let mut processes = Vec::new();
    for n in 0..6 {
        let gateway = client(&settings, &ledger(url).await, &format!("process {n}"));
        for _ in 0..4 {
            let gateway = gateway.clone();
            processes.push(tokio::spawn(async move { list(&gateway).await }));
        }
    }
    for process in processes {
        process.await.unwrap().unwrap();
    }
    assert_eq!(server.account().password_grants, 1);
    assert!(server.account().presented.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn first_start_of_many_processes_makes_one_password_grant_on_sqlite() {
    first_start_makes_one_password_grant(&File::new().url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_start_of_many_processes_makes_one_password_grant_on_postgres() {
    let database = testbed::database();
    first_start_makes_one_password_grant(&database.url()).await;
}

async fn each_refresh_token_is_presented_once(url: &str) {
    let server = Server::start(|_| ok(EMPTY_LIST)).await;
    server.account().expires_in = 1;
    let settings = settings(&server.base_url);
    let enough = Arc::new(AtomicBool::new(false));
    let mut processes = Vec::new();
    for n in 0..4 {
        let budget = Budget::in_process(1_000_000, Duration::from_secs(60));
        let gateway = Gateway::new(settings.clone(), ledger(url).await, budget, format!("process {n}")).unwrap();
        for _ in 0..2 {
            let (gateway, enough) = (gateway.clone(), Arc::clone(&enough));
            processes.push(tokio::spawn(async move {
                while !enough.load(Ordering::Relaxed) {
                    list(&gateway).await.unwrap();
                }
            }));
        }
    }
    testbed::eventually_async("three refreshes", WAIT, async || server.account().presented.len() >= 3).await;
    enough.store(true, Ordering::Relaxed);
    for process in processes {
        process.await.unwrap();
    }
    assert_eq!(server.account().password_grants, 1);
    assert!(server.account().no_token_came_twice());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_present_each_refresh_token_once_on_sqlite() {
    each_refresh_token_is_presented_once(&File::new().url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_present_each_refresh_token_once_on_postgres() {
    let database = testbed::database();
    each_refresh_token_is_presented_once(&database.url()).await;
}

#[tokio::test]
async fn a_restarted_process_uses_the_stored_pair() {
    let (server, file) = start().await;
    let settings = settings(&server.base_url);
    for who in ["first", "second"] {
        list(&client(&settings, &ledger(&file.url()).await, who)).await.unwrap();
    }
    assert_eq!(server.account().password_grants, 1);
    let stored = std::fs::read(file.url().trim_start_matches("sqlite://")).unwrap();
    assert!(!stored.windows(8).any(|bytes| bytes == b"access-1" || bytes == b"refresh-"), "the pair is sealed");
}

#[tokio::test]
async fn a_refresh_whose_answer_is_lost_is_not_presented_again() {
    let lose = Arc::new(AtomicBool::new(true));
    let server = {
        let lose = Arc::clone(&lose);
        Server::scripted(move |account, asked| match asked.path.as_str() {
            "/api/oauth/token" => {
                let reply = account.grant(asked);
                let lost = asked.field("grant_type") == "refresh_token" && lose.swap(false, Ordering::Relaxed);
                if lost { Reply::Close } else { reply }
            }
            _ if account.lets_in(asked) => ok(EMPTY_LIST),
            _ => Reply::Json(401, "{}".to_owned()),
        })
        .await
    };
    let file = File::new();
    let mut settings = settings(&server.base_url);
    settings.password_grant_every = Duration::ZERO;
    let gateway = client(&settings, &ledger(&file.url()).await, "test");
    list(&gateway).await.unwrap();
    server.account().revoke();
    list(&gateway).await.unwrap();
    assert!(!lose.load(Ordering::Relaxed));
    assert_eq!(server.account().presented, ["refresh-1"]);
    assert_eq!(server.account().password_grants, 2);
}

#[tokio::test]
async fn a_lost_refresh_within_the_breakers_time_pauses_and_says_so() {
    let server = Server::scripted(|account, asked| match asked.field("grant_type") {
        "password" => account.grant(asked),
        "refresh_token" => {
            account.grant(asked);
            Reply::Json(502, "<html>".to_owned())
        }
        _ => Reply::Json(401, "{}".to_owned()),
    })
    .await;
    let file = File::new();
    let gateway = client(&settings(&server.base_url), &ledger(&file.url()).await, "test");
    let error = list(&gateway).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Down);
    assert!(error.wait().is_some_and(|wait| wait > Duration::from_secs(500)), "{error}");
    assert!(error.to_string().contains("token refresh was lost: status 502"), "{error}");
    let account = server.account();
    assert_eq!((account.password_grants, account.presented.len()), (1, 1));
}

#[tokio::test]
async fn after_a_crash_in_a_refresh_the_token_is_tried_once_more() {
    let (server, file) = start().await;
    let mut settings = settings(&server.base_url);
    settings.refresh_stale = Duration::from_secs(2);
    let ledger = ledger(&file.url()).await;
    list(&client(&settings, &ledger, "first")).await.unwrap();
    server.account().revoke();
    died_while(&ledger, TokenPhase::Refreshing).await;
    list(&client(&settings, &ledger, "second")).await.unwrap();
    assert_eq!(server.account().presented, ["refresh-1"]);
    assert_eq!(server.account().password_grants, 1);
}

#[tokio::test]
async fn after_a_crash_in_the_second_try_only_the_password_is_left() {
    let (server, file) = start().await;
    let mut settings = settings(&server.base_url);
    settings.refresh_stale = Duration::from_secs(2);
    settings.password_grant_every = Duration::ZERO;
    let ledger = ledger(&file.url()).await;
    list(&client(&settings, &ledger, "first")).await.unwrap();
    server.account().revoke();
    died_while(&ledger, TokenPhase::Refreshing).await;
    died_while(&ledger, TokenPhase::Retrying).await;
    list(&client(&settings, &ledger, "second")).await.unwrap();
    assert!(server.account().presented.is_empty());
    assert_eq!(server.account().password_grants, 2);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_a_refresh_that_still_ends_well() {
    let (server, file) = start().await;
    let ledger = ledger(&file.url()).await;
    let gateway = client(&settings(&server.base_url), &ledger, "test");
    let call = tokio::spawn(async move { list(&gateway).await });
    testbed::eventually_async("the grant is asked for", WAIT, async || !server.paths().is_empty()).await;
    call.abort();
    testbed::eventually_async("the pair is kept", WAIT, async || ledger.token().await.unwrap().generation == 1).await;
    assert_eq!(ledger.token().await.unwrap().phase, TokenPhase::Ready);
}

#[tokio::test]
async fn wrong_credentials_are_said_at_once_and_tried_once_by_a_fleet() {
    let (server, file) = start().await;
    server.account().password = "another";
    let settings = settings(&server.base_url);
    for n in 0..5 {
        let gateway = client(&settings, &ledger(&file.url()).await, &format!("process {n}"));
        let error = list(&gateway).await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Credentials, "{error}");
        assert!(error.to_string().contains("gateway refused the credentials (status 401"), "{error}");
    }
    assert_eq!(server.account().password_grants, 1);
}

#[tokio::test]
async fn corrected_credentials_are_tried_at_once() {
    let (server, file) = start().await;
    server.account().password = "another";
    let mut settings = settings(&server.base_url);
    let ledger = ledger(&file.url()).await;
    list(&client(&settings, &ledger, "wrong")).await.unwrap_err();
    settings.password = "another".into();
    list(&client(&settings, &ledger, "corrected")).await.unwrap();
    assert_eq!(server.account().password_grants, 2);
}

#[tokio::test]
async fn a_process_with_older_credentials_steps_back_instead_of_taking_turns() {
    let (server, file) = start().await;
    let mut settings = settings(&server.base_url);
    let ledger = ledger(&file.url()).await;
    let older = client(&settings, &ledger, "older");
    list(&older).await.unwrap();
    server.account().password = "changed";
    settings.client_secret = "another secret".into();
    settings.password = "changed".into();
    let newer = client(&settings, &ledger, "newer");
    list(&newer).await.unwrap();
    let error = list(&older).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Credentials);
    assert!(error.to_string().contains("start it again"), "{error}");
    list(&newer).await.unwrap();
    assert_eq!(server.account().password_grants, 2);
}

#[tokio::test]
async fn a_gateway_that_is_down_costs_no_grant_and_no_refresh_token() {
    let (server, file) = start().await;
    let ledger = ledger(&file.url()).await;
    let mut nowhere = settings("http://127.0.0.1:1/api");
    nowhere.repeat_for = Duration::from_millis(100);
    nowhere.refresh_stale = Duration::from_secs(2);
    let error = list(&client(&nowhere, &ledger, "test")).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Down, "{error}");
    let row = ledger.token().await.unwrap();
    assert_eq!((row.phase, row.password_granted_at), (TokenPhase::None, None));

    server.account().expires_in = 1;
    let settings = settings(&server.base_url);
    list(&client(&settings, &ledger, "test")).await.unwrap();
    testbed::eventually_async("the token is old", WAIT, async || {
        let row = ledger.token().await.unwrap();
        row.expires_at.is_some_and(|end| end < row.read_at)
    })
    .await;
    let error = list(&client(&nowhere, &ledger, "test")).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Down, "{error}");
    assert_eq!(ledger.token().await.unwrap().phase, TokenPhase::Ready);
    list(&client(&settings, &ledger, "test")).await.unwrap();
    assert_eq!(server.account().presented, ["refresh-1"]);
    assert_eq!(server.account().password_grants, 1);
}

#[tokio::test]
async fn a_401_for_a_token_that_was_just_replaced_refreshes_nothing() {
    let (server, file) = start().await;
    let ledger = ledger(&file.url()).await;
    let settings = settings(&server.base_url);
    let (one, other) = (client(&settings, &ledger, "one"), client(&settings, &ledger, "other"));
    let old = one.permit(CallClass::Send).await.unwrap();
    server.account().revoke();
    list(&other).await.unwrap();
    assert_eq!(server.account().presented.len(), 1);
    let sender = campaign::SenderId::parse("ACME").unwrap();
    let number = campaign::Msisdn::from_digits(447_700_900_001).unwrap();
    one.send(old, &sender, "text", &[number]).await;
    list(&one).await.unwrap();
    assert_eq!(server.account().presented.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_waits_for_the_renewal_that_it_has_begun() {
    let (asked, was_asked) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let server = Server::scripted(move |account, request| {
        if request.field("grant_type") == "refresh_token" {
            asked.send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
        }
        if request.path.ends_with("/oauth/token") { account.grant(request) } else { ok(EMPTY_LIST) }
    })
    .await;
    server.account().expires_in = 1;
    let (file, mut was_asked) = (File::new(), was_asked);
    let ledger = ledger(&file.url()).await;
    let budget = Budget::in_process(1_000_000, Duration::from_secs(60));
    let gateway = Gateway::new(settings(&server.base_url), ledger.clone(), budget, "one".to_owned()).unwrap();
    list(&gateway).await.unwrap();
    // A second is over at once for a token that lives for one.
    let calls = tokio::spawn(async move {
        loop {
            list(&gateway).await.unwrap();
        }
    });
    was_asked.recv().await.unwrap();
    calls.abort();
    tokio::join!(gateway::renewals_are_over(), async { go_on.send(()).unwrap() });
    let row = ledger.token().await.unwrap();
    assert_eq!((row.phase, row.generation), (TokenPhase::Ready, 2));
}
