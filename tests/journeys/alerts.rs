//! The dashboard and the alerts ask for what a service shows.

use crate::harness::{Production, Service};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs};

/// What Prometheus itself adds to each line.
const ADDED: [&str; 2] = ["instance", "job"];

/// All expressions of the dashboard and of the alerts, as Prometheus is asked them.
fn expressions() -> Vec<String> {
    let read = |name: &str| {
        let path = format!("{}/../../deploy/monitoring/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut found: Vec<String> = targets.map(|target| target["expr"].as_str().expect("an expression").into()).collect();
    assert!(found.len() > 20, "{} expressions in the dashboard", found.len());
    // The rules' own words name no metric but in their expressions.
    let rules = read("alerts.yml");
    let alerts: Vec<&str> = rules.split("- alert:").skip(1).collect();
    assert!(alerts.len() > 10, "{} alerts", alerts.len());
    found.extend(alerts.iter().map(|alert| {
        let expression = alert.split_once("expr:").expect("an expression").1;
        expression.split("labels: {severity").next().expect("what is before").to_owned()
    }));
    found
}

/// Each metric that an expression names, with the labels that it is asked by.
fn asked(expression: &str) -> Vec<(String, Vec<String>)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in expression.match_indices("crier_") {
        if expression[..at].ends_with(word) {
            continue;
        }
        let rest = &expression[at..];
        let (name, rest) = rest.split_at(rest.find(|c| !word(c)).unwrap_or(rest.len()));
        let selector = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
        let labels = selector.split(',').filter_map(|pair| pair.split(['=', '!']).next()).filter(|l| !l.is_empty());
        found.push((name.to_owned(), labels.map(|label| label.trim().to_owned()).collect()));
    }
    found
}

/// The labels that an expression groups by.
fn grouped(expression: &str) -> Vec<String> {
    let groups = expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    groups.flat_map(|group| group.split(',')).map(|label| label.trim().to_owned()).collect()
}

#[test]
fn dashboard_and_alerts_ask_for_what_a_service_shows() {
    let production = Production::new(&json!({}));
    let worker = Service::start(&production.crier, &["worker"]);
    worker.wait_for("readyz", 200, "ok   token");
    let (_, scrape) = worker.get("metrics");
    let shown = |name: &str, label: Option<&str>| {
        let labelled = label.map(|label| format!("{label}=\""));
        let of = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        scrape.lines().any(|line| of(line) && labelled.as_deref().is_none_or(|label| line.contains(label)))
    };
    let mut names = BTreeSet::new();
    for expression in expressions() {
        let asked = asked(&expression);
        assert!(!asked.is_empty(), "no metric of ours in {expression}");
        for (name, labels) in &asked {
            assert!(shown(name, None), "{name} of {expression} is not shown:\n{scrape}");
            for label in labels.iter().chain(&grouped(&expression)).filter(|label| !ADDED.contains(&label.as_str())) {
                assert!(shown(name, Some(label)), "{name} has no label {label}: {expression}");
            }
        }
        names.extend(asked.into_iter().map(|(name, _)| name));
    }
    // And the other way: what is shown is looked at, one way or another.
    let kinds = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let unseen: Vec<_> = kinds.filter(|kind| !names.iter().any(|name| name.starts_with(kind))).collect();
    assert!(unseen.is_empty(), "in no panel and no alert: {unseen:?}");
}
