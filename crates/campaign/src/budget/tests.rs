use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

const LIMITS: Limits = Limits { limit: 1200, window_ms: 60_000 };

fn ask(limits: Limits, state: &mut State, now: i64, request: Request) -> Reply {
    let (next, reply) = step(limits, *state, now, request);
    *state = next;
    reply
}

fn acquire(limits: Limits, state: &mut State, now: i64, class: CallClass) -> Reply {
    ask(limits, state, now, Request::Acquire { class })
}

fn heard(window: i64, remaining: u32) -> Request {
    Request::Feedback { window, limit: Some(1200), remaining: Some(remaining), stop_ms: None }
}

#[test]
fn the_last_hundredth_is_kept_for_tokens_and_resolving() {
    let mut state = State::default();
    let granted = (0..2000)
        .filter(|_| matches!(acquire(LIMITS, &mut state, 1000, CallClass::Send), Reply::Granted { .. }))
        .count();
    assert_eq!(granted, 1188);
    let left =
        (0..20).filter(|_| matches!(acquire(LIMITS, &mut state, 1000, CallClass::Auth), Reply::Granted { .. })).count();
    assert_eq!(left, 12);
}

#[test]
fn the_first_answer_moves_the_windows_end() {
    let mut state = State::default();
    assert_eq!(acquire(LIMITS, &mut state, 1000, CallClass::Send), Reply::Granted { window: 1000 });
    ask(LIMITS, &mut state, 4000, heard(1000, 1199));
    // The gateway's window may have begun at 4000; ours began at 1000.
    assert_eq!(acquire(LIMITS, &mut state, 60_999, CallClass::Send), Reply::Granted { window: 1000 });
    assert_eq!(acquire(LIMITS, &mut state, 61_000, CallClass::Send), Reply::Wait { ms: 3000 });
    assert_eq!(acquire(LIMITS, &mut state, 64_000, CallClass::Send), Reply::Granted { window: 64_000 });
    // The call of 60_999 is not over: it may be in the gateway's new window.
    assert_eq!(state.carried, 1);
}

#[test]
fn what_the_gateway_says_remains_is_followed_down_only_in_its_window() {
    let mut state = State::default();
    for _ in 0..3 {
        acquire(LIMITS, &mut state, 1000, CallClass::Send);
    }
    // Somebody else has used the account; two of our calls are still under way.
    ask(LIMITS, &mut state, 1100, heard(1000, 4));
    assert_eq!(state.allowed, 5);
    ask(LIMITS, &mut state, 1200, heard(1000, 900));
    assert_eq!(state.allowed, 5);
    assert_eq!(acquire(LIMITS, &mut state, 70_000, CallClass::Auth), Reply::Granted { window: 70_000 });
    ask(LIMITS, &mut state, 70_001, heard(1000, 0));
    assert_eq!(state.allowed, 1200);
}

#[test]
fn a_lower_class_waits_while_a_higher_one_is_expected_back() {
    let mut state = State::default();
    let stop = Request::Feedback { window: 0, limit: None, remaining: None, stop_ms: Some(1000) };
    ask(LIMITS, &mut state, 1000, stop);
    assert_eq!(acquire(LIMITS, &mut state, 1000, CallClass::Auth), Reply::Wait { ms: 1000 });
    assert_eq!(acquire(LIMITS, &mut state, 2000, CallClass::Status), Reply::Wait { ms: TURN_MS });
    assert_eq!(acquire(LIMITS, &mut state, 2001, CallClass::Auth), Reply::Granted { window: 2000 });
    assert_eq!(acquire(LIMITS, &mut state, 2025, CallClass::Status), Reply::Granted { window: 2000 });
    // One that never comes back holds the others up only so long.
    ask(LIMITS, &mut state, 3000, Request::Feedback { window: 0, limit: None, remaining: None, stop_ms: Some(100) });
    assert_eq!(acquire(LIMITS, &mut state, 3000, CallClass::Send), Reply::Wait { ms: 100 });
    assert!(matches!(acquire(LIMITS, &mut state, 3399, CallClass::Status), Reply::Wait { .. }));
    assert!(matches!(acquire(LIMITS, &mut state, 3400, CallClass::Status), Reply::Granted { .. }));
}

fn class() -> impl Strategy<Value = CallClass> {
    prop::sample::select(CallClass::ALL.to_vec())
}

fn request() -> impl Strategy<Value = (Request, i64, bool)> {
    let acquire = class().prop_map(|class| Request::Acquire { class });
    let feedback = (prop::option::of(1..60_u32), prop::option::of(0..60_u32), prop::option::weighted(0.1, 0..3000_i64))
        .prop_map(|(limit, remaining, stop_ms)| Request::Feedback { window: 0, limit, remaining, stop_ms });
    // The flag: the feedback is about the current window.
    (prop_oneof![3 => acquire, 1 => feedback], 0..400_i64, prop::bool::weighted(0.8))
}

proptest! {
    #[test]
    fn no_window_has_too_many_grants_and_no_grant_breaks_a_stop_or_the_order(
        requests in prop::collection::vec(request(), 1..400),
        limit in 1..50_u32,
    ) {
        let limits = Limits { limit, window_ms: 2000 };
        let mut state = State::default();
        let mut now = 1_700_000_000_000;
        let mut grants: BTreeMap<i64, u32> = BTreeMap::new();
        let mut stopped_until = 0;
        let mut expected = [0; 4];
        for (request, pause, current) in requests {
            now += pause;
            let request = match request {
                Request::Feedback { limit, remaining, stop_ms, .. } => {
                    stopped_until = stop_ms.map_or(stopped_until, |ms| stopped_until.max(now + ms));
                    let window = if current { state.window } else { state.window - 2000 };
                    Request::Feedback { window, limit, remaining, stop_ms }
                }
                Request::Acquire { class } => Request::Acquire { class },
            };
            let reply = ask(limits, &mut state, now, request);
            if let Request::Acquire { class } = request {
                match reply {
                    Reply::Granted { window } => {
                        prop_assert!(now >= stopped_until);
                        prop_assert!(expected[..class.rank()].iter().all(|&until| until <= now));
                        expected[class.rank()] = 0;
                        let count = grants.entry(window).or_default();
                        *count += 1;
                        prop_assert!(*count <= limit);
                        prop_assert!(now - window < 2000);
                    }
                    Reply::Wait { ms } => {
                        prop_assert!(ms >= 1);
                        expected[class.rank()] = now + ms + PATIENCE_MS;
                    }
                    Reply::Noted => prop_assert!(false, "an acquire is granted or waits"),
                }
            }
        }
    }

    /// The gateway: a window begins at the first call that arrives after the last one's end.
    #[test]
    fn the_gateway_never_counts_more_than_its_limit(
        callers in prop::collection::vec((0..5_i64, prop::collection::vec((1..150_i64, 1..150_i64, 0..60_i64), 30..120)), 1..12),
        limit in 12..40_u32,
    ) {
        let limits = Limits { limit, window_ms: 2000 };
        #[derive(Clone, Copy)]
        enum Event { Ask(usize), Arrive(usize, i64), Answer(usize, i64, u32) }
        let mut queue: BTreeMap<(i64, usize), Event> = BTreeMap::new();
        let mut serial = 0;
        let mut turns: HashMap<usize, std::vec::IntoIter<(i64, i64, i64)>> = HashMap::new();
        let mut legs: HashMap<usize, (i64, i64)> = HashMap::new();
        for (caller, (begins, calls)) in callers.into_iter().enumerate() {
            turns.insert(caller, calls.into_iter());
            serial += 1;
            queue.insert((1000 + begins, serial), Event::Ask(caller));
        }
        let mut state = State::default();
        let (mut began, mut counted) = (i64::MIN / 2, 0_u32);
        let mut made = 0;
        while let Some(((now, _), event)) = queue.pop_first() {
            let mut later = |at: i64, event| { serial += 1; queue.insert((at, serial), event); };
            match event {
                Event::Ask(caller) => match acquire(limits, &mut state, now, CallClass::Send) {
                    Reply::Granted { window } => {
                        let Some((up, down, pause)) = turns.get_mut(&caller).and_then(Iterator::next) else { continue };
                        legs.insert(caller, (down, pause));
                        made += 1;
                        later(now + up, Event::Arrive(caller, window));
                    }
                    Reply::Wait { ms } => later(now + ms, Event::Ask(caller)),
                    Reply::Noted => {}
                },
                Event::Arrive(caller, window) => {
                    if now >= began + limits.window_ms {
                        (began, counted) = (now, 0);
                    }
                    counted += 1;
                    prop_assert!(counted <= limit, "call {made} at {now}: {counted} of {limit}");
                    later(now + legs[&caller].0, Event::Answer(caller, window, limit - counted));
                }
                Event::Answer(caller, window, remaining) => {
                    let feedback = Request::Feedback { window, limit: Some(limit), remaining: Some(remaining), stop_ms: None };
                    ask(limits, &mut state, now, feedback);
                    later(now + legs[&caller].1, Event::Ask(caller));
                }
            }
        }
        prop_assert!(made > 25);
    }
}
