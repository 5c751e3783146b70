//! What can go wrong, as a list that can be printed, repeated and shortened.

use crate::{rng::Rng, scenario::Scenario};

/// One thing that goes wrong. `nth` counts from 0 what its kind names, over all processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process ends at this place and another takes its place later.
    Crash {
        /// Where.
        at: Place,
        /// The how-manieth time that somebody is there.
        nth: u32,
    },
    /// A process stands still at this place.
    Freeze {
        /// Where.
        at: Place,
        /// The how-manieth time.
        nth: u32,
        /// For how long.
        secs: u32,
    },
    /// A commit takes effect and its answer is lost.
    CommitLost {
        /// Of which operation.
        operation: &'static str,
        /// The how-manieth.
        nth: u32,
    },
    /// For a while nothing can be committed.
    DiskFull {
        /// From when.
        at_s: u32,
        /// For how long.
        secs: u32,
    },
    /// A call that sends goes wrong.
    Send {
        /// The how-manieth of these calls.
        nth: u32,
        /// How.
        what: SendFault,
    },
    /// A call that reads goes wrong.
    Read {
        /// The how-manieth of these calls.
        nth: u32,
        /// How.
        what: ReadFault,
    },
    /// A token call goes wrong.
    Token {
        /// The how-manieth.
        nth: u32,
        /// How.
        what: TokenFault,
    },
    /// The access tokens that are out are good no more; `burn`: the refresh tokens neither.
    Revoke {
        /// When.
        at_s: u32,
        /// The refresh tokens too.
        burn: bool,
    },
    /// For a while the list shows its newest text on the first page only, so that others move between pages.
    Flicker {
        /// From when.
        at_s: u32,
        /// For how long.
        secs: u32,
    },
    /// Somebody else sends from our sender.
    Foreign {
        /// When.
        at_s: u32,
        /// To one of our numbers, with another text; else to another number with one of our texts.
        our_number: bool,
    },
    /// A listed text vanishes from the list.
    Delete {
        /// When.
        at_s: u32,
    },
    /// Jobs go wrong on their way.
    Queue {
        /// The how-manieth job that is pushed.
        nth: u32,
        /// How.
        what: QueueFault,
    },
    /// A process' own clock is set.
    Clock {
        /// When.
        at_s: u32,
        /// Which worker's, from 0.
        worker: u32,
        /// By how much.
        by_s: i32,
    },
    /// A campaign is paused, and resumed later.
    Pause {
        /// The claim after which that is done.
        claim: u32,
        /// For how long.
        secs: u32,
    },
    /// A campaign is cancelled.
    Cancel {
        /// The claim after which that is done.
        claim: u32,
    },
    /// Somebody opts out whose row has just been claimed.
    OptOut {
        /// The claim.
        claim: u32,
        /// Which of its rows.
        row: u32,
    },
    /// A person writes to the sender.
    Write {
        /// When.
        at_s: u32,
        /// Which of the numbers.
        nth: u32,
        /// What.
        word: &'static str,
        /// How much later the list shows it.
        lag_s: u32,
    },
    /// The ledger is lost with all processes, and what was copied of it earlier is restored: a person says so at once. Only where all
    /// files were loaded before the copy was made.
    Restore {
        /// When the copy is made.
        copied_s: u32,
        /// When it is restored.
        at_s: u32,
        /// It is lost a while after that: in the middle of a call whose texts go out when nobody waits for it any more.
        in_call: bool,
    },
    /// A process is asked to stop at this place: it begins nothing new, finishes what is under way, and ends.
    Stop {
        /// Where.
        at: Place,
        /// The how-manieth time that somebody is there.
        nth: u32,
    },
    /// The call budget is forgotten, as by a flushed Redis.
    Flush {
        /// When.
        at_s: u32,
    },
    /// A person decides about all rows that are held.
    Resolve {
        /// When.
        at_s: u32,
        /// 0: taken for sent, 1: given up, 2: sent again where the person knows that it did not go out.
        how: u32,
    },
}

/// A place of the protocol at which a process may end or stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Before a transaction.
    Before(&'static str),
    /// After a commit, before anybody knows of it.
    After(&'static str),
    /// Before a call that sends leaves.
    Request,
    /// After it took effect, before its answer.
    Answer,
    /// After a token call took effect, before its answer.
    TokenAnswer,
    /// After the list was read, before that is known.
    ReadAnswer,
}

/// How a send call goes wrong. `done`: its effect, in hundredths of its destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFault {
    /// No answer in time.
    TimedOut {
        /// Effect.
        done: u32,
        /// The effect comes after the client gave up.
        late: bool,
    },
    /// The connection breaks.
    Broken {
        /// Effect.
        done: u32,
    },
    /// A status that says nothing.
    Status {
        /// Which.
        status: u16,
        /// Effect.
        done: u32,
    },
    /// The success message although some were not taken.
    AcceptedInPart {
        /// Effect.
        done: u32,
    },
    /// Surely refused: 0 for no connection.
    Refused {
        /// Which.
        status: u16,
    },
}

/// How a read goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// This status.
    Status(u16),
    /// No answer in time.
    TimedOut,
    /// The connection breaks.
    Broken,
}

/// How a token call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// The pair is issued and the answer is lost.
    Lost,
    /// Nothing is done: this status.
    Status(u16),
    /// No connection.
    NoConnection,
}

/// How a job goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueFault {
    /// It is lost.
    Lose,
    /// It comes twice.
    Double,
    /// It comes this much later.
    Late(u32),
    /// All jobs are lost.
    Flush,
}

/// The operations of the ledger that commit on the way of a row, as the ledger names them.
const COMMITS: [&str; 15] = [
    "claim a chunk",
    "mark a batch as being sent",
    "take a batch back unsent",
    "record the outcome of a batch",
    "finish a chunk",
    "mark chunks as being on the queue",
    "take back what dead workers left",
    "apply a reading of the gateway's list",
    "remember a reading of the list",
    "hold rows",
    "queue absent rows again",
    "settle attempts",
    "claim the token row",
    "commit the new token pair",
    "release the token row",
];

/// Those on the way of a file.
const LOADS: [&str; 3] = ["begin to load a file", "load rows into the ledger", "finish loading a file"];

impl Fault {
    pub(crate) fn list(rng: &mut Rng, scenario: &Scenario) -> Vec<Self> {
        // One of ten seeds has nothing go wrong but what its world does by itself.
        let count = rng.pick(&[0, 1, 2, 3, 3, 4, 5, 6, 8, 12]);
        // Each seed leans towards two dangers, so that they meet.
        let leaning = [rng.of(0, 14), rng.of(0, 14)];
        let mut faults = Vec::new();
        for _ in 0..count {
            let kind = if rng.percent(60) { rng.pick(&leaning) } else { rng.of(0, 21) };
            faults.push(Self::of_kind(kind, rng, scenario));
        }
        faults
    }

    /// Who holds a batch is asked to stop, often when no token is to be had for minutes.
    pub(crate) fn stopped(rng: &mut Rng) -> Vec<Self> {
        let places = [Place::After("claim a chunk"), Place::Before("mark a batch as being sent")];
        let stop = |rng: &mut Rng| Self::Stop { at: rng.pick(&places), nth: rng.of(1, 12) };
        vec![Self::Revoke { at_s: rng.of(1, 30), burn: true }, stop(rng), stop(rng)]
    }

    /// The copy is made when all is loaded and much of it not yet sent.
    pub(crate) fn restored(rng: &mut Rng, scenario: &Scenario) -> Self {
        let last = scenario.campaigns.iter().map(|campaign| campaign.at_s).max().unwrap_or(0);
        let copied_s = last + rng.of(1, 10);
        Self::Restore { copied_s, at_s: copied_s + rng.of(1, 60), in_call: rng.percent(50) }
    }

    /// What people write: to few senders often, and some of them more than once.
    pub(crate) fn written(rng: &mut Rng, scenario: &Scenario) -> Vec<Self> {
        let count = rng.of(1, 6);
        let write = |rng: &mut Rng| Self::Write {
            at_s: rng.of(1, 120),
            nth: rng.of(0, 40) / rng.of(1, 12),
            word: rng.pick(&["STOP", "Stop.", "start", "Thanks"]),
            lag_s: rng.of(0, scenario.settle_s - 8) * rng.of(0, 2),
        };
        (0..count).map(|_| write(rng)).collect()
    }

    fn of_kind(kind: u32, rng: &mut Rng, scenario: &Scenario) -> Self {
        let done = rng.pick(&[0, 0, 30, 60, 100, 100, 100]);
        let nth = rng.of(0, 14);
        let at_s = rng.of(1, 300);
        match kind {
            0 => Self::Send { nth, what: SendFault::TimedOut { done, late: rng.percent(50) } },
            1 => Self::Send { nth, what: SendFault::Status { status: rng.pick(&[500, 502, 504, 302, 200]), done } },
            2 => Self::Send { nth, what: SendFault::Broken { done } },
            3 => Self::Send { nth, what: SendFault::AcceptedInPart { done: rng.pick(&[0, 40, 80]) } },
            4 => Self::Send { nth, what: SendFault::Refused { status: rng.pick(&[0, 401, 413, 422, 429]) } },
            5 => Self::Crash { at: rng.pick(&[Place::Request, Place::Answer]), nth },
            6 => Self::Freeze {
                at: rng.pick(&[Place::Request, Place::Answer, Place::After("mark a batch as being sent")]),
                nth,
                secs: rng.pick(&[3, 30, 100, 300, 900, 2_400, 3_600]),
            },
            7 => {
                let operation = rng.pick(&COMMITS);
                let at = if rng.percent(40) { Place::Before(operation) } else { Place::After(operation) };
                Self::Crash { at, nth: rng.of(0, 10) }
            }
            8 => Self::CommitLost { operation: rng.pick(&COMMITS), nth: rng.of(0, 8) },
            9 => Self::OptOut { claim: rng.of(0, 8), row: rng.of(0, 40) },
            10 => match rng.of(0, 3) {
                0 => Self::Revoke { at_s, burn: rng.percent(40) },
                1 => Self::Token {
                    nth: rng.of(0, 4),
                    what: rng.pick(&[
                        TokenFault::Lost,
                        TokenFault::Status(500),
                        TokenFault::Status(429),
                        TokenFault::NoConnection,
                    ]),
                },
                _ => Self::Crash { at: Place::TokenAnswer, nth: rng.of(0, 3) },
            },
            11 => Self::Flicker { at_s: rng.of(1, 60), secs: rng.of(60, 900) },
            12 => {
                let late = QueueFault::Late(rng.of(1, 200));
                Self::Queue { nth, what: rng.pick(&[QueueFault::Lose, QueueFault::Double, late, QueueFault::Flush]) }
            }
            13 => match rng.of(0, 4) {
                0 => Self::Pause { claim: rng.of(0, 6), secs: rng.of(5, 400) },
                1 => Self::Cancel { claim: rng.of(0, 10) },
                _ => Self::Resolve { at_s: rng.of(200, 900), how: rng.of(0, 3) },
            },
            14 => Self::Read {
                nth: rng.of(0, 40),
                what: rng.pick(&[
                    ReadFault::Status(500),
                    ReadFault::Status(429),
                    ReadFault::Status(401),
                    ReadFault::TimedOut,
                    ReadFault::Broken,
                ]),
            },
            15 => match rng.of(0, 3) {
                0 => Self::Foreign { at_s, our_number: rng.percent(50) },
                1 => Self::Delete { at_s },
                _ => Self::Crash { at: Place::ReadAnswer, nth: rng.of(0, 30) },
            },
            16 => Self::Clock {
                at_s: rng.of(1, 90),
                worker: rng.of(0, scenario.workers),
                by_s: i32::try_from(rng.of(0, 1_200)).expect("small") - 600,
            },
            17 => {
                let operation = rng.pick(&LOADS);
                let (before, after) = (Place::Before(operation), Place::After(operation));
                match rng.of(0, 6) {
                    0 => Self::CommitLost { operation, nth: rng.of(0, 5) },
                    1 => Self::Freeze { at: before, nth: rng.of(0, 5), secs: rng.pick(&[10, 100, 400]) },
                    2 => Self::Crash { at: before, nth: rng.of(0, 5) },
                    _ => Self::Crash { at: after, nth: rng.of(0, 5) },
                }
            }
            18 => {
                let places = [
                    Place::After("claim a chunk"),
                    Place::Before("mark a batch as being sent"),
                    Place::After("mark a batch as being sent"),
                    Place::Request,
                    Place::Answer,
                    Place::TokenAnswer,
                    Place::ReadAnswer,
                    Place::After("record the outcome of a batch"),
                    Place::After("settle attempts"),
                ];
                Self::Stop { at: rng.pick(&places), nth: rng.of(0, 10) }
            }
            19 => Self::Flush { at_s: rng.of(1, 120) },
            _ => Self::DiskFull { at_s: rng.of(1, 200), secs: rng.of(1, 90) },
        }
    }

    /// How far into the run it reaches.
    pub(crate) fn lasts_s(&self) -> u32 {
        match self {
            Self::Freeze { secs, .. } => 200 + secs,
            Self::Pause { secs, .. } => 120 + secs,
            Self::DiskFull { at_s, secs } | Self::Flicker { at_s, secs } => at_s + secs,
            Self::Revoke { at_s, .. }
            | Self::Foreign { at_s, .. }
            | Self::Delete { at_s }
            | Self::Clock { at_s, .. }
            | Self::Flush { at_s }
            | Self::Write { at_s, .. }
            | Self::Restore { at_s, .. }
            | Self::Resolve { at_s, .. } => *at_s,
            Self::Crash { .. }
            | Self::Stop { .. }
            | Self::CommitLost { .. }
            | Self::Send { .. }
            | Self::Read { .. }
            | Self::Token { .. }
            | Self::Queue { .. }
            | Self::Cancel { .. }
            | Self::OptOut { .. } => 0,
        }
    }
}
