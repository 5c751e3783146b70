//! Readings of the gateway's list and details: what they decide, and what they must not.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of tests for no tests")]

#[path = "../../../gateway/tests/support/mod.rs"]
mod support;

mod house;
mod in_turn;
mod late;
mod one_of_many;
mod parts;
