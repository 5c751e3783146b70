//! crier
fn main() {}
