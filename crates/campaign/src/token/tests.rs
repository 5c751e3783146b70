use super::*;

const POLICY: TokenPolicy =
    TokenPolicy { claim_stale: SignedDuration::from_secs(60), password_grant_every: SignedDuration::from_mins(10) };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_765_000_000 + second).unwrap()
}

/// A pair of an hour's life, committed at 0.
fn view(phase: TokenPhase, phase_at: i64) -> TokenView {
    TokenView {
        phase,
        phase_at: at(phase_at),
        pair: Some(PairTimes { issued_at: at(0), expires_at: at(3600) }),
        refused: false,
        password_granted_at: Some(at(0)),
        credentials: Credentials::Ours,
    }
}

fn decided(view: TokenView, now: i64) -> TokenDecision {
    decide(POLICY, view, at(now))
}

#[test]
fn a_pair_is_replaced_a_minute_before_its_end_or_a_tenth_of_a_short_life() {
    assert_eq!(refresh_due(PairTimes { issued_at: at(0), expires_at: at(3600) }), at(3540));
    assert_eq!(refresh_due(PairTimes { issued_at: at(0), expires_at: at(20) }), at(18));
    assert_eq!(decided(view(TokenPhase::Ready, 0), 3539), TokenDecision::Use);
    assert_eq!(decided(view(TokenPhase::Ready, 0), 3540), TokenDecision::Refresh);
    assert_eq!(decided(view(TokenPhase::Ready, 0), 9999), TokenDecision::Refresh);
}

#[test]
fn the_shorter_of_expires_in_and_the_jwt_counts() {
    let seconds = SignedDuration::from_secs;
    assert_eq!(life(seconds(3600), Some(seconds(31_536_000))), seconds(3600));
    assert_eq!(life(seconds(3600), Some(seconds(60))), seconds(60));
    assert_eq!(life(seconds(3600), None), seconds(3600));
    assert_eq!(life(seconds(3600), Some(seconds(-5))), SignedDuration::ZERO);
}

#[test]
fn others_use_the_old_token_while_it_is_good_and_wait_after() {
    for phase in [TokenPhase::Refreshing, TokenPhase::Retrying, TokenPhase::Granting] {
        assert_eq!(decided(view(phase, 3545), 3550), TokenDecision::Use, "{phase:?}");
        assert_eq!(decided(view(phase, 3590), 3600), TokenDecision::Wait, "{phase:?}");
        let refused = TokenView { refused: true, ..view(phase, 3545) };
        assert_eq!(decided(refused, 3550), TokenDecision::Wait, "{phase:?}");
    }
}

#[test]
fn a_refused_token_is_replaced_but_not_as_fast_as_the_network_goes() {
    let refused = TokenView { refused: true, ..view(TokenPhase::Ready, 0) };
    assert_eq!(decided(refused, 0), TokenDecision::Wait);
    assert_eq!(decided(refused, 1), TokenDecision::Refresh);
}

#[test]
fn a_dead_refresher_is_replaced_once() {
    assert_eq!(decided(view(TokenPhase::Refreshing, 3540), 3599), TokenDecision::Use);
    assert_eq!(decided(view(TokenPhase::Refreshing, 3540), 3600), TokenDecision::Retry);
    assert_eq!(decided(view(TokenPhase::Retrying, 3600), 3660), TokenDecision::Grant);
}

#[test]
fn the_password_grant_has_a_breaker() {
    for phase in [TokenPhase::Burned, TokenPhase::None, TokenPhase::Granting] {
        let mut spent = TokenView { pair: None, password_granted_at: Some(at(3000)), ..view(phase, 3000) };
        assert_eq!(decided(spent, 3599), TokenDecision::Pause { until: at(3600) }, "{phase:?}");
        assert_eq!(decided(spent, 3600), TokenDecision::Grant, "{phase:?}");
        spent.password_granted_at = None;
        assert_eq!(decided(spent, 3599), TokenDecision::Grant, "{phase:?}");
    }
    let burned_but_good = TokenView { password_granted_at: Some(at(3000)), ..view(TokenPhase::Burned, 3000) };
    assert_eq!(decided(burned_but_good, 3100), TokenDecision::Use);
}

#[test]
fn changed_credentials_lift_the_breaker_and_an_outdated_process_steps_back() {
    let changed = TokenView { credentials: Credentials::Older, ..view(TokenPhase::Granting, 0) };
    assert_eq!(decided(changed, 1), TokenDecision::Grant);
    let outdated = TokenView { credentials: Credentials::Newer, ..view(TokenPhase::Ready, 0) };
    assert_eq!(decided(outdated, 1), TokenDecision::Outdated);
}

#[test]
fn a_pair_that_cannot_be_opened_is_no_pair() {
    let unreadable = TokenView { pair: None, ..view(TokenPhase::Ready, 0) };
    assert_eq!(decided(unreadable, 700), TokenDecision::Grant);
    assert_eq!(decided(unreadable, 10), TokenDecision::Pause { until: at(600) });
}

/// Walks every way through the phases and counts how often one refresh token is presented.
#[test]
fn no_way_through_the_phases_presents_a_refresh_token_twice_but_for_the_one_try_after_a_crash() {
    fn walk(phase: TokenPhase, presented: u32, crashes: u32, depth: u32) {
        assert!(presented <= 1 + crashes.min(1), "presented {presented} times after {crashes} crashes");
        if depth == 0 {
            return;
        }
        let spent = TokenView { password_granted_at: None, ..view(phase, 0) };
        for now in [30, 3700] {
            let claimed = match decided(spent, now) {
                TokenDecision::Refresh => TokenPhase::Refreshing,
                TokenDecision::Retry => TokenPhase::Retrying,
                // A password grant brings another token.
                TokenDecision::Grant => continue,
                TokenDecision::Use | TokenDecision::Wait | TokenDecision::Pause { .. } | TokenDecision::Outdated => {
                    continue;
                }
            };
            walk(phase_after(claimed, phase, TokenCall::NotDone), presented, crashes, depth - 1);
            walk(phase_after(claimed, phase, TokenCall::Refused), presented + 1, crashes, depth - 1);
            walk(phase_after(claimed, phase, TokenCall::Lost), presented + 1, crashes, depth - 1);
            walk(claimed, presented + 1, crashes + 1, depth - 1);
        }
    }
    walk(TokenPhase::Ready, 0, 0, 8);
}

#[test]
fn phases_have_names() {
    for phase in TokenPhase::ALL {
        assert_eq!(TokenPhase::from_name(phase.name()), Some(phase));
    }
    assert_eq!(TokenPhase::from_name("lost"), None);
}
