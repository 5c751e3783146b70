//! Journeys: the real binary from a file to its report, with the sandbox as the gateway and its book as the oracle.

#![expect(clippy::print_stdout, reason = "a journey prints its account")]

#[expect(clippy::allow_attributes, reason = "an expectation would fail once everything is used")]
#[allow(dead_code, unused_imports, reason = "each test program uses its own part of the harness")]
#[path = "../harness/mod.rs"]
mod harness;

mod alerts;
mod answers;
mod bad_input;
mod canary;
mod deciding;
mod dependencies;
mod embedded;
mod first_steps;
mod frugal;
mod launching;
mod operating;
mod people;
mod production;
mod steering;
mod templates;
