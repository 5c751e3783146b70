//! What scales the workers on a cluster names the keys of the queue; `crates/crier/tests/queue.rs` counts what is in them.

use apalis_redis::Config;

#[test]
fn the_manifest_names_the_keys_in_which_jobs_wait() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes/components/keda/scaledobject.yaml");
    let manifest = std::fs::read_to_string(path).unwrap();
    let named = manifest.lines().filter_map(|line| line.trim().strip_prefix("listName:"));
    let named: Vec<_> = named.map(|name| name.trim().trim_matches('"').to_owned()).collect();
    // The default of queue.name.
    let queue = Config::default().queue("crier");
    assert_eq!(named, [queue.active_jobs_list(), queue.scheduled_jobs_set()]);
}
