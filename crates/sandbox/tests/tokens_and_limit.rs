//! Tokens burn, and 1,200 calls are 1,200 calls.

mod harness;

use base64::Engine;
use harness::{Rig, eventually, quick};
use sandbox::{Config, Operation};
use serde_json::{Value, json};

#[tokio::test]
async fn a_refresh_token_works_once_and_takes_its_access_token_with_it() {
    let rig = Rig::new(quick()).await;
    assert_eq!(rig.get("/sms/list").await.unwrap().status(), 200);
    let fresh: Value = rig.refresh_grant(&rig.refresh).await.json().await.unwrap();
    assert_eq!(rig.get("/sms/list").await.unwrap().status(), 401, "a refresh revokes the access token at once");

    let again = rig.refresh_grant(&rig.refresh).await;
    assert_eq!(again.status(), 401);
    let error: Value = again.json().await.unwrap();
    assert_eq!(error["error"], "invalid_request");
    assert_eq!(error["error_description"], "The refresh token is invalid.");
    assert_eq!(rig.refresh_grant("made-up").await.status(), 401);

    let rig = Rig { access: fresh["access_token"].as_str().unwrap().to_owned(), ..rig };
    assert_eq!(rig.get("/sms/list").await.unwrap().status(), 200);
    let book = rig.running.book();
    assert_eq!((book.password_grants, book.refresh_grants), (1, 1));
    assert_eq!((book.burned_presentations, book.unknown_presentations), (1, 1));
    assert_eq!(book.refresh_tokens_presented_twice, 1);
}

#[tokio::test]
async fn the_refreshed_token_claims_a_year_against_its_own_expires_in() {
    let rig = Rig::new(Config { expires_in_s: 60, ..quick() }).await;
    let life = |token: &str| {
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        (claims["exp"].as_f64().unwrap() - claims["iat"].as_f64().unwrap()).round()
    };
    assert_eq!(life(&rig.access), 60.0);
    let fresh: Value = rig.refresh_grant(&rig.refresh).await.json().await.unwrap();
    assert_eq!(life(fresh["access_token"].as_str().unwrap()), 31_536_000.0);
    assert_eq!(fresh["expires_in"], 60);
    assert_eq!(fresh["customer_user_id"], "2");
}

#[tokio::test]
async fn an_expired_token_opens_nothing() {
    let rig = Rig::new(Config { expires_in_s: 0, ..quick() }).await;
    assert_eq!(rig.get("/sms/list").await.unwrap().status(), 401);
}

#[tokio::test]
async fn wrong_credentials_are_told_apart() {
    let rig = Rig::stranger(quick()).await;
    let config = Config::default();
    let ask = async |secret: &str, password: &str| {
        let form = [
            ("grant_type", "password"),
            ("client_id", config.client_id.as_str()),
            ("client_secret", secret),
            ("username", &config.username),
            ("password", password),
        ];
        rig.post("/oauth/token", &form).await.unwrap().status().as_u16()
    };
    assert_eq!(ask("wrong", &config.password).await, 401);
    assert_eq!(ask(&config.client_secret, "wrong").await, 400);
    assert_eq!(ask(&config.client_secret, &config.password).await, 200);
    assert_eq!(rig.running.book().password_grants, 1);
}

#[tokio::test]
async fn past_the_limit_come_429_and_retry_after() {
    let rig = Rig::new(Config { rate_limit: 3, ..quick() }).await;
    let remaining = rig.get("/sms/list").await.unwrap().headers()["x-ratelimit-remaining"].clone();
    assert_eq!(remaining, "1", "the token call counts too");
    assert_eq!(rig.get("/sms/list").await.unwrap().status(), 200);
    let refused = rig.send("hi", "447700900123").await.unwrap();
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((50..=60).contains(&wait), "{wait}");
    assert!(refused.headers().contains_key("x-ratelimit-reset"));
    assert_eq!(refused.headers()["x-ratelimit-remaining"], "0");
    assert_eq!(rig.running.book().calls_before_retry_after, 0);
    assert_eq!(rig.send("hi", "447700900123").await.unwrap().status(), 429);
    let book = rig.running.book();
    assert_eq!((book.accepted, book.throttled, book.calls_before_retry_after), (0, 2, 1));
    assert_eq!(book.calls[&Operation::Send], 2);
    assert_eq!(book.answers[&Operation::Send]["429"], 2);
}

#[tokio::test]
async fn the_limiter_can_be_switched_off() {
    let rig = Rig::new(Config { rate_limit: 1, rate_limited: false, ..quick() }).await;
    for _ in 0..3 {
        assert_eq!(rig.get("/sms/list").await.unwrap().status(), 200);
    }
    let changed = rig.control("PATCH", "/config").json(&json!({"rate_limited": true})).send().await.unwrap();
    assert_eq!(changed.status(), 204);
    rig.get("/sms/list").await.unwrap();
    assert_eq!(rig.get("/sms/list").await.unwrap().status(), 429);
}

#[tokio::test]
async fn a_throttle_fault_refuses_every_call_for_its_time() {
    let rig = Rig::faulty(r#"[{"operation":"list","fault":"throttle","ms":60000,"retry_after_s":7,"times":1}]"#).await;
    assert_eq!(rig.send("hi", "447700900123").await.unwrap().status(), 200);
    let refused = rig.get("/sms/list").await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "7"));
    assert_eq!(rig.send("hi", "447700900123").await.unwrap().status(), 429);
    assert_eq!(rig.running.book().accepted, 1);
}

#[tokio::test]
async fn revoked_and_burned_tokens_have_to_be_fetched_anew() {
    let rules = r#"[{"operation":"list","fault":"revoke_token","times":1},
                    {"operation":"senders","fault":"burn_refresh","times":1}]"#;
    let rig = Rig::faulty(rules).await;
    assert_eq!(rig.get("/sender-id/list").await.unwrap().status(), 200);
    assert_eq!(rig.get("/sms/list").await.unwrap().status(), 401);
    assert_eq!(rig.get("/sms/list").await.unwrap().status(), 401, "it stays revoked");
    assert_eq!(rig.refresh_grant(&rig.refresh).await.status(), 401);
    assert_eq!(rig.password_grant().await.status(), 200);
}

#[tokio::test]
async fn a_token_that_is_revoked_stops_no_call_under_way() {
    let rig = Rig::faulty(r#"[{"operation":"send","fault":"delay","ms":500,"effect":"after"}]"#).await;
    let under_way = rig.send("hi", "447700900123");
    let revoked = async {
        // The fault strikes after the token was looked at.
        eventually("the call is under way", async || rig.running.book().faults.contains_key("delay")).await;
        rig.refresh_grant(&rig.refresh).await
    };
    let (sent, refreshed) = tokio::join!(under_way, revoked);
    assert_eq!((sent.unwrap().status().as_u16(), refreshed.status().as_u16()), (200, 200));
    assert_eq!(rig.get("/sms/list").await.unwrap().status(), 401);
}
