//! What a newcomer types first.

use crate::harness::Crier;

#[test]
fn the_binary_says_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let printed = Crier::new(dir.path()).expect(0, ["--version"]);
    assert_eq!(printed.trim(), concat!("crier ", env!("CARGO_PKG_VERSION")));
}
