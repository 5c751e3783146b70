use super::*;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use redis::aio::ConnectionManagerConfig;

async fn connection(server: &testbed::Redis) -> ConnectionManager {
    let config = ConnectionManagerConfig::new().set_number_of_retries(1);
    redis::Client::open(server.url()).unwrap().get_connection_manager_with_config(config).await.unwrap()
}

#[derive(Clone, Debug)]
enum Asked {
    Acquire(CallClass),
    Feedback { current: bool, limit: Option<u32>, remaining: Option<u32>, stop_ms: Option<i64> },
}

fn asked() -> impl Strategy<Value = (Asked, i64)> {
    let acquire = prop::sample::select(CallClass::ALL.to_vec()).prop_map(Asked::Acquire);
    let feedback = (
        prop::bool::weighted(0.8),
        prop::option::of(0..300_u32),
        prop::option::of(0..300_u32),
        prop::option::weighted(0.1, 0..3000_i64),
    )
        .prop_map(|(current, limit, remaining, stop_ms)| Asked::Feedback { current, limit, remaining, stop_ms });
    // Now and then the clock is set back, or nobody calls for long.
    let pause = prop_oneof![20 => 0..60_i64, 2 => 0..2500_i64, 1 => -3000..20_000_i64];
    (prop_oneof![3 => acquire, 1 => feedback], pause)
}

#[tokio::test]
async fn the_script_answers_as_the_step_does() {
    let server = testbed::Redis::start();
    let connection = connection(&server).await;
    let mut runner = TestRunner::deterministic();
    for case in 0..40 {
        let limit = [3, 40, 250][case % 3];
        let window = Duration::from_millis(2000);
        let script = Budget::shared(connection.clone(), &format!("budget {case}"), limit, window);
        let mut state = State::default();
        let mut now = 1_765_000_000_000;
        let requests = prop::collection::vec(asked(), 300).new_tree(&mut runner).unwrap().current();
        for (n, (asked, pause)) in requests.into_iter().enumerate() {
            now += pause;
            let request = match asked {
                Asked::Acquire(class) => Request::Acquire { class },
                Asked::Feedback { current, limit, remaining, stop_ms } => {
                    let window = if current { state.window } else { state.window - 1 };
                    Request::Feedback { window, limit, remaining, stop_ms }
                }
            };
            let (next, expected) = step(script.limits, state, now, request);
            state = next;
            let reply = script.ask(request, Some(now)).await.unwrap();
            assert_eq!(reply, expected, "case {case}, request {n}: {request:?} at {now} in {state:?}");
        }
    }
}

#[tokio::test]
async fn two_processes_share_one_limit_on_rediss_clock() {
    let server = testbed::Redis::start();
    let window = Duration::from_secs(2);
    let budgets = [connection(&server).await, connection(&server).await]
        .map(|connection| Budget::shared(connection, "crier:budget", 10, window));
    let began = std::time::Instant::now();
    let mut windows = std::collections::BTreeMap::new();
    for n in 0..25 {
        let window = budgets[n % 2].acquire(CallClass::Send).await;
        *windows.entry(window).or_insert(0) += 1;
    }
    assert_eq!(windows.values().copied().collect::<Vec<_>>(), [10, 10, 5]);
    assert!(began.elapsed() >= 2 * window - Duration::from_millis(5));
}

#[tokio::test]
async fn nobody_calls_while_redis_is_down_and_all_go_on_when_it_is_back() {
    let mut server = testbed::Redis::start();
    let budget = Budget::shared(connection(&server).await, "crier:budget", 10, Duration::from_secs(2));
    budget.acquire(CallClass::Send).await;
    server.stop();
    let waiting = tokio::time::timeout(Duration::from_secs(1), budget.acquire(CallClass::Send)).await;
    assert!(waiting.is_err(), "granted without a budget");
    server.resume();
    tokio::time::timeout(Duration::from_secs(30), budget.acquire(CallClass::Send)).await.unwrap();
}

#[tokio::test]
async fn a_redis_that_forgets_is_told_again_who_must_wait() {
    let server = testbed::Redis::start();
    let window = Duration::from_secs(60);
    let [heard, other] = [connection(&server).await, connection(&server).await]
        .map(|connection| Budget::shared(connection, "crier:budget", 10, window));
    let granted = heard.acquire(CallClass::Send).await;
    let stop = Some(Duration::from_secs(600));
    heard.feedback(Heard { window: granted, limit: None, remaining: None, stop }).await;
    server.flush();
    let waiting = tokio::time::timeout(Duration::from_millis(300), heard.acquire(CallClass::Send)).await;
    assert!(waiting.is_err(), "it called although it had been told to wait");
    let reply = other.ask(Request::Acquire { class: CallClass::Send }, None).await.unwrap();
    assert!(matches!(reply, Reply::Wait { ms } if ms > 500_000), "the other does not know: {reply:?}");
}

#[tokio::test]
async fn a_budget_of_one_process_waits_for_the_next_window() {
    let budget = Budget::in_process(3, Duration::from_millis(200));
    let began = Instant::now();
    for _ in 0..7 {
        budget.acquire(CallClass::Send).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(395));
}
