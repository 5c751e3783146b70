use super::*;
use secrecy::ExposeSecret;
use std::time::Duration;

fn sources(set: &[&str]) -> Sources {
    Sources { set: set.iter().map(|pair| (*pair).to_owned()).collect(), ..Sources::default() }
}

fn environment(pairs: &[(&str, &str)]) -> Sources {
    let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources { environment, ..Sources::default() }
}

fn settings(sources: &Sources) -> Result<Settings, ConfigError> {
    Settings::parse(&Merged::load(sources)?)
}

fn refusal(sources: &Sources) -> String {
    settings(sources).map(|_| "accepted").unwrap_err().to_string()
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("crier.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

#[test]
fn every_default_parses() {
    let settings = settings(&Sources::default()).unwrap();
    assert_eq!(settings.worker.batch_len_max, 100);
    assert_eq!(settings.gateway.window, Duration::from_secs(60));
    assert_eq!(settings.reconcile.settle, None);
    assert!(matches!(settings.queue_url, QueueUrl::Memory));
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let (_dir, path) = file("[worker]\nbatch_len_max = 7\nconcurrency = 2\n\n[gateway]\nwindow = \"90s\"\n");
    let mut sources = environment(&[("CRIER_WORKER__BATCH_LEN_MAX", "8"), ("CRIER_WORKER__CONCURRENCY", "3")]);
    sources.file = Some(path.clone());
    sources.set = vec!["worker.batch_len_max=9".to_owned()];
    let merged = Merged::load(&sources).unwrap();
    let shown = |name| (merged.entry(name).value.clone().unwrap(), merged.entry(name).origin.clone());
    assert_eq!(shown("worker.batch_len_max"), ("9".to_owned(), Origin::Flag));
    let variable = "CRIER_WORKER__CONCURRENCY".to_owned();
    assert_eq!(shown("worker.concurrency"), ("3".to_owned(), Origin::Environment(variable)));
    assert_eq!(shown("gateway.window"), ("90s".to_owned(), Origin::File(path)));
    assert_eq!(shown("queue.name"), ("crier".to_owned(), Origin::Default));
}

#[test]
fn the_first_usual_file_is_read_and_a_named_one_instead_of_it() {
    let (dir, path) = file("[queue]\nname = \"usual\"\n");
    let other = dir.path().join("other.toml");
    std::fs::write(&other, "[queue]\nname = \"named\"\n").unwrap();
    let mut sources = Sources { usual_files: vec![dir.path().join("absent.toml"), path], ..Sources::default() };
    assert_eq!(settings(&sources).unwrap().queue_name, "usual");
    sources.environment = vec![("CRIER_CONFIG".to_owned(), other.display().to_string())];
    assert_eq!(settings(&sources).unwrap().queue_name, "named");
}

#[test]
fn an_unknown_key_is_refused_wherever_it_stands_and_what_is_near_is_named() {
    let (_dir, path) = file("[worker]\nbatch_len = 7\n");
    let in_file = refusal(&Sources { file: Some(path.clone()), ..Sources::default() });
    assert_eq!(
        in_file,
        format!(
            "there is no setting worker.batch_len (from file {}). Did you mean worker.batch_len_max?",
            path.display()
        )
    );
    assert_eq!(
        refusal(&environment(&[("CRIER_GATEWAY__BASEURL", "x")])),
        "there is no setting gateway.baseurl (from environment CRIER_GATEWAY__BASEURL). Did you mean gateway.base_url?"
    );
    assert_eq!(
        refusal(&sources(&["worker.window=3s"])),
        "there is no setting worker.window (from --set). Did you mean gateway.window?"
    );
    assert_eq!(
        refusal(&environment(&[("CRIER_GATEWAY_USERNAME", "x")])),
        "there is no setting gateway_username (from environment CRIER_GATEWAY_USERNAME). Did you mean gateway.username?"
    );
    assert!(refusal(&sources(&["colour=red"])).ends_with("`crier config` lists all settings."));
    assert!(refusal(&sources(&["worker=4"])).starts_with("there is no setting worker "));
}

#[test]
fn what_kubernetes_injects_for_a_service_of_our_name_is_no_setting() {
    let injected = [
        ("CRIER_SERVICE_HOST", "10.0.0.1"),
        ("CRIER_SERVICE_PORT_METRICS", "9090"),
        ("CRIER_PORT_9090_TCP_ADDR", "10.0.0.1"),
        ("CRIER_PORT", "tcp://10.0.0.1:9090"),
    ];
    assert!(settings(&environment(&injected)).is_ok());
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    assert_eq!(settings(&environment(&[("CRIER_RECONCILE__SETTLE", "")])).unwrap().reconcile.settle, None);
}

#[test]
fn a_secret_may_stand_in_a_file_and_its_line_end_is_not_part_of_it() {
    let (_dir, path) = file("hunter2\r\n");
    let path = path.display().to_string();
    let mut from = environment(&[
        ("CRIER_GATEWAY__PASSWORD_FILE", path.as_str()),
        ("CRIER_GATEWAY__CLIENT_ID", "id"),
        ("CRIER_GATEWAY__CLIENT_SECRET", "secret"),
        ("CRIER_GATEWAY__USERNAME", "name"),
    ]);
    let found = settings(&from).unwrap();
    assert_eq!(found.gateway.credentials().unwrap().password.expose_secret(), "hunter2");
    assert!(!format!("{found:?}").contains("hunter2"));
    from.set = vec!["gateway.password=flag".to_owned()];
    let found = settings(&from).unwrap();
    assert_eq!(found.gateway.credentials().unwrap().password.expose_secret(), "flag", "the stronger layer wins");
    from.environment.push(("CRIER_GATEWAY__PASSWORD".to_owned(), "both".to_owned()));
    from.set.clear();
    assert!(refusal(&from).starts_with("both gateway.password and gateway.password_file are set"));
}

#[test]
fn a_secret_file_that_is_absent_is_named_with_the_setting_that_names_it() {
    let refused = refusal(&environment(&[("CRIER_LEDGER__URL_FILE", "/nowhere/url")]));
    assert!(refused.starts_with("ledger.url_file names /nowhere/url, which can't be read"), "{refused}");
    assert!(refused.contains("CRIER_LEDGER__URL_FILE"), "{refused}");
}

#[test]
fn only_secrets_have_a_file_twin() {
    assert!(refusal(&sources(&["queue.name_file=/x"])).starts_with("there is no setting queue.name_file"));
}

#[test]
fn half_of_the_credentials_is_an_error_and_none_is_not() {
    let none = settings(&Sources::default()).unwrap();
    assert!(none.gateway.credentials_if_any().unwrap().is_none());
    let half = settings(&sources(&["gateway.client_id=x", "gateway.username=y", "gateway.password=z"])).unwrap();
    let error = half.gateway.credentials_if_any().unwrap_err().to_string();
    assert!(error.contains("gateway.client_secret is not set"), "{error}");
    assert!(error.contains("CRIER_GATEWAY__CLIENT_SECRET"), "{error}");
}

#[test]
fn durations_are_written_with_units() {
    assert_eq!(settings(&sources(&["reconcile.settle=15m"])).unwrap().reconcile.settle, Some(Duration::from_secs(900)));
    assert_eq!(
        refusal(&sources(&["reconcile.settle=15"])),
        "reconcile.settle is `15` (from --set). It takes a length of time, like 500ms, 30s, 15m or 72h."
    );
    assert!(settings(&sources(&["gateway.window=0s"])).is_err());
}

#[test]
fn a_bulk_call_takes_500_destinations_and_no_more() {
    assert_eq!(settings(&sources(&["worker.batch_len_max=500"])).unwrap().worker.batch_len_max, 500);
    assert_eq!(
        refusal(&sources(&["worker.batch_len_max=501"])),
        "worker.batch_len_max is `501` (from --set). It takes a number from 1 to 500."
    );
    assert!(settings(&sources(&["worker.batch_len_max=0"])).is_err());
}

#[test]
fn plain_http_is_for_this_machine_alone() {
    for url in
        ["http://127.0.0.1:8080/api", "http://localhost/api", "http://[::1]:9/api", "https://gateway.example/api"]
    {
        assert!(settings(&sources(&[&format!("gateway.base_url={url}")])).is_ok(), "{url}");
    }
    for url in ["http://gateway.example/api", "http://localhost.example/api", "ftp://x/", "https://u:p@x/api"] {
        assert!(settings(&sources(&[&format!("gateway.base_url={url}")])).is_err(), "{url}");
    }
}

#[test]
fn a_broken_file_is_named_with_its_line_and_not_quoted() {
    let (_dir, path) = file("[gateway]\npassword = \"hunter2\nclient_id = 1\n");
    let refused = refusal(&Sources { file: Some(path), ..Sources::default() });
    assert!(refused.starts_with("line 2 is no TOML"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
}

#[test]
fn passwords_in_urls_are_masked() {
    assert_eq!(masked_url("postgres://crier:s3cret@db/crier"), "postgres://crier:***@db/crier");
    assert_eq!(masked_url("redis://:s3cret@cache:6379/1"), "redis://:***@cache:6379/1");
    assert_eq!(masked_url("postgres://db/crier?password=s3cret&a=b"), "postgres://db/crier?password=***&a=b");
    assert_eq!(masked_url("sqlite://crier.db"), "sqlite://crier.db");
    assert_eq!(masked_url("memory:"), "memory:");
    assert_eq!(masked_url("postgres://crier:s3 cret@[db/crier"), "postgres:…");
    let refused = refusal(&sources(&["ledger.url=mysql://crier:s3cret@db/crier"]));
    assert!(!refused.contains("s3cret"), "{refused}");
}

#[test]
fn prices_come_from_any_layer_by_prefix() {
    let (_dir, path) = file("[plan.prices]\n\"44\" = 0.035\n353 = 0.06\ndefault = \"0.1\"\n");
    let sources = Sources {
        file: Some(path),
        environment: vec![("CRIER_PLAN__PRICES__44".to_owned(), "0.04".to_owned())],
        set: vec!["plan.prices.4477=0.05".to_owned()],
        ..Sources::default()
    };
    let prices = settings(&sources).unwrap().plan.prices;
    assert_eq!(prices.to_string(), "4477=0.05 353=0.06 44=0.04 default=0.10");
    assert!(settings(&Sources::default()).unwrap().plan.prices.is_empty());
    let wrong = refusal(&self::sources(&["plan.prices.44=0,5"]));
    assert!(wrong.contains("plan.prices.44 is `0,5`") && wrong.contains("like 0.035"), "{wrong}");
    let wrong = refusal(&self::sources(&["plan.prices.GB=1"]));
    assert!(wrong.to_lowercase().contains("there is no setting plan.prices.gb"), "{wrong}");
}
