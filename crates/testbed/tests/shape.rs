//! The repository's own shape: what depends on what, what may lie where, what is never written.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Which crates of ours a crate may use. The three stages meet in the binary only.
const EDGES: [(&str, &[&str]); 13] = [
    ("campaign", &[]),
    ("crash", &[]),
    ("crier", &["campaign", "gateway", "ingest", "ledger", "queue", "reconciler", "sandbox", "telemetry", "worker"]),
    ("gateway", &["campaign", "crash", "ledger", "telemetry"]),
    ("ingest", &["campaign", "crash", "ledger", "queue", "telemetry"]),
    ("ledger", &["campaign", "crash", "telemetry"]),
    ("queue", &["campaign", "telemetry"]),
    ("reconciler", &["campaign", "gateway", "ledger", "queue", "telemetry"]),
    ("sandbox", &["campaign", "gateway"]),
    ("simulation", &["campaign", "gateway", "ingest", "ledger", "queue", "reconciler", "worker"]),
    ("telemetry", &[]),
    ("testbed", &[]),
    ("worker", &["campaign", "gateway", "ledger", "queue", "telemetry"]),
];

const TOP: [&str; 11] = [
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "campaigns.example.csv",
    "crates",
    "deploy",
    "migrations",
    "target",
    "tests",
];

const LINES_MAX: usize = 700;

/// The one module that may use the unmaintained crate that was asked for by name.
const PATIENCE: &str = "crates/gateway/src/patience.rs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn manifest(name: &str) -> toml::Table {
    fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap().parse().unwrap()
}

/// Each crate of ours with those of ours that it is built from; what only its tests use is left out.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let names: BTreeSet<_> =
        fs::read_dir(root().join("crates")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let used = |name: &String| {
        let manifest = manifest(name);
        let tables =
            ["dependencies", "build-dependencies"].into_iter().filter_map(|table| manifest.get(table)?.as_table());
        tables.flat_map(toml::Table::keys).filter(|used| names.contains(*used)).cloned().collect()
    };
    names.iter().map(|name| (name.clone(), used(name))).collect()
}

/// All that `name` is built from, by any number of steps.
fn reach(edges: &BTreeMap<String, BTreeSet<String>>, name: &str) -> BTreeSet<String> {
    let direct = &edges[name];
    direct.iter().flat_map(|used| reach(edges, used)).chain(direct.iter().cloned()).collect()
}

/// Every source file with its path from the root.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let (root, mut found) = (root(), Vec::new());
    ["crates", "tests"].iter().for_each(|dir| walk(&root.join(dir), &mut found));
    assert!(found.len() > 20, "the sources were not found");
    let named =
        |path: PathBuf| (path.strip_prefix(&root).unwrap().display().to_string(), fs::read_to_string(path).unwrap());
    found.into_iter().map(named).collect()
}

/// The part of a source file that is test code.
fn test_part<'s>(path: &str, source: &'s str) -> &'s str {
    let whole = path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("tests.rs");
    let start = if whole { 0 } else { source.find("#[cfg(test)]").unwrap_or(source.len()) };
    &source[start..]
}

/// Lines that hold one of `words`, as `path:line: text`; this file holds them all.
fn lines_with(words: &[&str], part: impl for<'s> Fn(&str, &'s str) -> &'s str) -> Vec<String> {
    let mut found = Vec::new();
    for (path, source) in sources().iter().filter(|(path, _)| !path.ends_with("tests/shape.rs")) {
        let part = part(path, source);
        let skipped = source.len() - part.len();
        let before = source[..skipped].lines().count();
        let lines = part.lines().enumerate().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        found.extend(lines.map(|(n, line)| format!("{path}:{}: {}", before + n + 1, line.trim())));
    }
    found
}

#[test]
fn crates_use_each_other_only_as_the_map_says() {
    let edges = edges();
    assert_eq!(edges.keys().collect::<Vec<_>>(), EDGES.map(|(name, _)| name).iter().collect::<Vec<_>>());
    for (name, allowed) in EDGES {
        let beyond: Vec<_> = edges[name].iter().filter(|used| !allowed.contains(&used.as_str())).collect();
        assert!(beyond.is_empty(), "{name} must not use {beyond:?}");
    }
}

#[test]
fn no_stage_is_built_from_another() {
    let (edges, stages) = (edges(), ["ingest", "worker", "reconciler"]);
    for stage in stages {
        let reach = reach(&edges, stage);
        assert!(stages.iter().all(|other| !reach.contains(*other)), "{stage} reaches {reach:?}");
    }
}

#[test]
fn campaign_is_built_from_nothing_of_ours_and_does_no_io() {
    assert!(edges()["campaign"].is_empty());
    let manifest = manifest("campaign");
    for io in ["tokio", "sqlx", "reqwest", "redis", "apalis", "axum", "csv"] {
        assert!(!manifest["dependencies"].as_table().unwrap().contains_key(io), "campaign must not use {io}");
    }
    let clock_or_io = ["Timestamp::now", "Zoned::now", "SystemTime", "Instant::now", "std::fs", "std::net", "std::env"];
    let mut found = lines_with(&clock_or_io, |path, source| &source[..source.len() - test_part(path, source).len()]);
    found.retain(|line| line.starts_with("crates/campaign/"));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn ingest_cannot_reach_the_gateway() {
    let reach = reach(&edges(), "ingest");
    assert!(!reach.contains("gateway"), "{reach:?}");
    assert!(!manifest("ingest")["dependencies"].as_table().unwrap().contains_key("reqwest"));
}

#[test]
fn the_sandbox_shares_the_wire_types_with_the_gateway_and_nothing_else() {
    for (path, source) in sources().iter().filter(|(path, _)| path.starts_with("crates/sandbox/src/")) {
        for (at, _) in source.match_indices("gateway::") {
            let word = source[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            assert!(
                word || source[at..].starts_with("gateway::wire"),
                "{path} uses more of the gateway than its wire types"
            );
        }
    }
}

#[test]
fn only_tests_are_built_from_the_testbed() {
    for (name, used) in edges() {
        assert!(!used.contains("testbed"), "{name} is built from the testbed");
    }
}

#[test]
fn only_the_simulation_asks_for_its_seams() {
    let asks = |manifest: &toml::Table| {
        let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
        let used = tables.iter().filter_map(|table| manifest.get(*table)?.as_table()).flat_map(|table| table.values());
        used.filter_map(|used| used.get("features")).any(|features| format!("{features:?}").contains("simulated"))
    };
    for (name, used) in edges() {
        let manifest = manifest(&name);
        assert!(!asks(&manifest), "{name} is built with the seams");
        assert!(!used.contains("simulation"), "{name} is built from the simulation");
        let features = manifest.get("features").and_then(toml::Value::as_table);
        assert!(features.is_none_or(|features| !features.contains_key("default")), "{name} has features by default");
        let passes =
            features.is_some_and(|features| features.values().any(|of| format!("{of:?}").contains("simulated")));
        let seamed = ["gateway", "ledger", "reconciler", "simulation", "worker"].contains(&name.as_str());
        assert!(!passes || seamed, "{name} passes the seams on");
    }
    let root: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let of_workspace = root["workspace"]["dependencies"].as_table().unwrap().values();
    assert!(of_workspace.filter_map(|used| used.get("features")).all(|of| !format!("{of:?}").contains("simulated")));
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for name in edges().keys() {
        let manifest = manifest(name);
        let takes = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(takes, Some(true), "{name}");
    }
}

#[test]
fn the_top_level_holds_what_a_reader_expects_and_no_more() {
    // What lies about in a working copy is nobody's business; where there is no git, everything counts.
    let listed =
        Command::new("git").args(["ls-files"]).current_dir(root()).output().ok().filter(|git| git.status.success());
    let entries: BTreeSet<String> = match listed {
        Some(git) => {
            String::from_utf8(git.stdout).unwrap().lines().map(|path| path.split('/').next().unwrap().into()).collect()
        }
        None => fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect(),
    };
    assert!(entries.contains("Cargo.toml"), "{entries:?}");
    let beyond: Vec<_> =
        entries.iter().filter(|name| !name.starts_with('.') && !TOP.contains(&name.as_str())).collect();
    assert!(beyond.is_empty(), "{beyond:?}");
}

#[test]
fn nothing_is_left_to_be_written_and_no_test_is_switched_off() {
    let found = lines_with(&["todo!(", "unimplemented!(", "#[ignore"], |_, source| source);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_test_sleeps() {
    let found = lines_with(&["thread::sleep", "time::sleep"], test_part);
    assert!(found.is_empty(), "wait on a condition with a deadline (testbed::eventually): {found:#?}");
    let waits = lines_with(&["thread::sleep", "time::sleep"], |_, source| source);
    let of_testbed = |line: &&String| line.starts_with("crates/testbed/") && !line.contains("/waiting.rs");
    assert_eq!(waits.iter().find(of_testbed), None, "only testbed::eventually passes time");
}

/// Files of the ledger whose every commit is on the way of a file or of a row.
const ON_THE_WAY: [&str; 8] = ["abandoned", "attempts", "claims", "feed", "imports", "outcomes", "rounds", "tokens"];

/// Only a file that changes between two readings a moment apart gets there, and no test can make that happen for sure.
const NEVER_FOR_SURE: &str = "remove a file that was not loaded to its end";

#[test]
fn every_border_of_the_way_is_a_crash_point() {
    let sources: BTreeMap<_, _> = sources().into_iter().collect();
    let mut borders = BTreeSet::new();
    for file in ON_THE_WAY {
        let source = &sources[&format!("crates/ledger/src/{file}.rs")];
        let mut operation = "";
        for line in source.lines().map(str::trim) {
            operation =
                line.strip_prefix("let operation = \"").and_then(|rest| rest.split('"').next()).unwrap_or(operation);
            // A round is named by what is in it.
            let of_a_round =
                line.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|_| file == "rounds");
            let commits = line.contains("_tx!(") && !["", NEVER_FOR_SURE].contains(&operation);
            for operation in of_a_round.into_iter().chain(commits.then_some(operation)) {
                borders
                    .extend([crash::BEFORE_COMMIT, crash::AFTER_COMMIT].map(|border| format!("{border}{operation}")));
            }
        }
    }
    let named = sources.iter().filter(|(path, _)| !path.ends_with("tests/shape.rs"));
    borders.extend(named.flat_map(|(_, source)| {
        source.split("crash::reach(\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned)
    }));
    let listed: BTreeSet<String> = crash::POINTS.iter().map(|point| (*point).to_owned()).collect();
    let missing: Vec<_> = borders.difference(&listed).collect();
    assert!(missing.is_empty(), "no crash points: {missing:#?}");
    let elsewhere = "apply a reading of the gateway's list";
    let beyond: Vec<_> = listed.difference(&borders).filter(|point| !point.ends_with(elsewhere)).collect();
    assert!(beyond.is_empty(), "crash points that are nowhere: {beyond:#?}");
}

#[test]
fn no_product_has_crash_points_or_sends_traces() {
    for name in edges().keys() {
        let manifest = manifest(name);
        let armed =
            manifest.get("dependencies").and_then(|used| used.get("crash")).and_then(|used| used.get("features"));
        assert!(armed.is_none(), "{name} is built with crash points");
    }
    assert_eq!(manifest("crash")["features"].as_table().unwrap().keys().collect::<Vec<_>>(), ["armed"], "no default");
    // What cargo itself makes of the features of a program that is built to be used.
    let tree = ["tree", "--locked", "--offline", "-p", "crier", "-e", "normal,features", "--prefix", "none"];
    let tree = Command::new(env!("CARGO")).args(tree).current_dir(root()).output().unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.lines().any(|line| line.starts_with("crash v")), "{tree}");
    assert!(!tree.contains("crash feature \"armed\""), "a product has crash points");
    assert!(!tree.contains("telemetry feature \"otlp\""), "a product sends traces without being built for that");
}

#[test]
fn the_unmaintained_backoff_stays_in_one_module() {
    let mut found = lines_with(&["backoff::"], |_, source| source);
    found.retain(|line| !line.starts_with(PATIENCE));
    assert!(found.is_empty(), "{found:#?}");
    let users: Vec<_> = edges()
        .into_keys()
        .filter(|name| manifest(name).get("dependencies").is_some_and(|used| used.get("backoff").is_some()))
        .collect();
    assert_eq!(users, ["gateway"]);
}

#[test]
fn no_source_file_is_too_long_to_be_read() {
    let lines = sources().into_iter().map(|(path, source)| (source.lines().count(), path));
    let long: Vec<_> = lines.filter(|(lines, _)| *lines > LINES_MAX).collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:#?}");
}

/// Migrations expand before they contract: programs of the version before go on while a new one is rolled out.
#[test]
fn a_migration_that_takes_something_away_says_which_programs_still_work() {
    const TAKES_AWAY: [&str; 6] = ["DROP TABLE", "DROP COLUMN", "DROP VIEW", "RENAME ", "SET NOT NULL", "ALTER COLUMN"];
    let mut looked_at = 0;
    for database in ["sqlite", "postgres"] {
        for migration in fs::read_dir(root().join("migrations").join(database)).unwrap() {
            let path = migration.unwrap().path();
            let sql = fs::read_to_string(&path).unwrap().to_uppercase();
            let takes_away = TAKES_AWAY.iter().find(|words| sql.contains(*words));
            let says = sql.contains("UPDATE SCHEMA_FLOOR SET OLDEST");
            assert!(takes_away.is_none() || says, "{}: {takes_away:?} and no schema_floor", path.display());
            looked_at += 1;
        }
    }
    assert!(looked_at >= 2);
}
