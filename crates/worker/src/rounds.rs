//! What calls and chunks need of the ledger: whoever comes at one moment gets it in one commit.

use crate::{Unmarked, quarantine_if_behind, together::Together};
use campaign::{ChunkId, OwnerId};
use jiff::SignedDuration;
use ledger::{ClaimedBatch, Ledger, MarkedBatch, Recorded, Round, SendingBatch};
use queue::Mark;
use std::{ops::RangeInclusive, sync::Arc};
use tokio::sync::{Mutex, oneshot::Sender};

/// Why a batch was not begun: nothing of it was sent.
#[derive(Clone)]
pub(crate) enum NotBegun {
    /// It is not ours any more, or may not go out now.
    MayNot,
    /// The mark may have been committed although its answer was lost.
    Unwritten(Arc<ledger::Error>),
    /// The ledger was restored.
    Behind,
    /// How far the sending has come could not be remembered.
    Unmarked(Arc<Unmarked>),
    /// Whoever began it with others was stopped.
    Stopped,
}

impl NotBegun {
    pub(crate) fn in_words(&self) -> &'static str {
        match self {
            Self::MayNot => "not begun",
            Self::Unwritten(_) => "it could not be marked",
            Self::Behind => "the ledger was restored",
            Self::Unmarked(_) => "the mark of what is sent could not be raised",
            Self::Stopped => "the worker was stopping",
        }
    }

    pub(crate) fn error(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unwritten(error) => Some(&**error),
            Self::Unmarked(error) => Some(&**error),
            Self::MayNot | Self::Behind | Self::Stopped => None,
        }
    }
}

/// What is needed of a commit, and who is told how it went. An error is told to each of a round: one of them may be why.
enum Step {
    Begin(Vec<ClaimedBatch>, Sender<Result<Marked, Arc<ledger::Error>>>),
    Taken(Arc<SendingBatch>, Sender<Result<Recorded, Arc<ledger::Error>>>),
    Rest((ChunkId, OwnerId), Sender<Result<(), Arc<ledger::Error>>>),
}

/// The batches that are marked, and the numbers of their calls.
type Marked = (Vec<Option<MarkedBatch>>, Option<RangeInclusive<i64>>);

/// A batch that is to begin.
type Beginning = (ClaimedBatch, Sender<Result<SendingBatch, NotBegun>>);

/// The rounds of one worker.
pub(crate) struct Rounds {
    ledger: Ledger,
    mark: Mark,
    first_look: SignedDuration,
    steps: Together<Step>,
    /// Those that begin together have the disk and the mark to wait for, too; the next begin after that, since a ledger that was
    /// restored shows by the mark.
    beginning: Together<Beginning>,
    /// One claim at a time waits for its turn beside the rounds.
    claiming: Mutex<()>,
}

impl Rounds {
    /// `mark` remembers outside of the ledger how far the sending has come; `first_look` is how old a text should be when the list
    /// is first read for it.
    pub(crate) fn new(ledger: Ledger, mark: Mark, first_look: SignedDuration) -> Self {
        Self {
            ledger,
            mark,
            first_look,
            steps: Together::new(),
            beginning: Together::new(),
            claiming: Mutex::default(),
        }
    }

    /// Has a claim made between two rounds where the ledger has one writer: a round waits for one claim at most, and whatever is needed
    /// of the ledger meanwhile is one commit after it.
    pub(crate) async fn between<T>(&self, claim: impl Future<Output = T>) -> T {
        if !self.ledger.is_embedded() {
            return claim.await;
        }
        let _claiming = self.claiming.lock().await;
        let _turn = self.steps.between().await;
        claim.await
    }

    /// Marks a batch as being sent, lastingly, and then remembers outside of the ledger that it is.
    pub(crate) async fn begin(&self, batch: ClaimedBatch) -> Result<SendingBatch, NotBegun> {
        let begun = self.beginning.join(|tell| (batch, tell), |all| self.begin_all(all)).await;
        begun.unwrap_or(Err(NotBegun::Stopped))
    }

    /// Records that the gateway took a batch and told no ids.
    pub(crate) async fn taken(&self, batch: Arc<SendingBatch>) -> Option<Result<Recorded, Arc<ledger::Error>>> {
        self.steps.join(|tell| Step::Taken(batch, tell), |steps| self.round(steps)).await
    }

    /// Ends the work on a chunk.
    pub(crate) async fn rest(&self, chunk: ChunkId, owner: OwnerId) -> Option<Result<(), Arc<ledger::Error>>> {
        self.steps.join(|tell| Step::Rest((chunk, owner), tell), |steps| self.round(steps)).await
    }

    async fn begin_all(&self, all: Vec<Beginning>) {
        // Who was stopped meanwhile sends nothing. Who does not wait for what he is told has been stopped since.
        let (batches, tell): (Vec<_>, Vec<_>) = all.into_iter().filter(|(_, tell)| !tell.is_closed()).unzip();
        match self.mark_all(batches).await {
            Ok(begun) => tell.into_iter().zip(begun).for_each(|(tell, begun)| {
                let _ = tell.send(begun.ok_or(NotBegun::MayNot));
            }),
            Err(why) => tell.into_iter().for_each(|tell| {
                let _ = tell.send(Err(why.clone()));
            }),
        }
    }

    /// Answers each that may be sent.
    async fn mark_all(&self, batches: Vec<ClaimedBatch>) -> Result<Vec<Option<SendingBatch>>, NotBegun> {
        let marked = self.steps.join(|tell| Step::Begin(batches, tell), |steps| self.round(steps)).await;
        let (marked, calls) = marked.ok_or(NotBegun::Stopped)?.map_err(NotBegun::Unwritten)?;
        let lasting = self.ledger.lasting(marked).await.map_err(|error| NotBegun::Unwritten(Arc::new(error)))?;
        if let Some(calls) = calls {
            match quarantine_if_behind(&self.ledger, &self.mark, calls).await {
                Ok(false) => {}
                Ok(true) => return Err(NotBegun::Behind),
                Err(error) => return Err(NotBegun::Unmarked(Arc::new(error))),
            }
        }
        Ok(lasting)
    }

    /// Makes one commit of all steps.
    async fn round(&self, steps: Vec<Step>) {
        let (mut begin, mut begun) = (Vec::new(), None);
        let (mut taken, mut recorded) = (Vec::new(), Vec::new());
        let (mut rest, mut rested) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                // One at a time is to begin: who began before and does not wait any more was stopped, and sends nothing.
                Step::Begin(batches, tell) if !tell.is_closed() => (begin, begun) = (batches, Some(tell)),
                Step::Begin(..) => {}
                Step::Taken(batch, tell) => {
                    taken.push(batch);
                    recorded.push(tell);
                }
                Step::Rest(chunk, tell) => {
                    rest.push(chunk);
                    rested.push(tell);
                }
            }
        }
        let round = Round { begin, taken: taken.iter().map(|batch| &**batch).collect(), rest };
        let done = self.ledger.round(round, self.first_look, self.ledger.now()).await.map_err(Arc::new);
        let failed = done.as_ref().err().map(Arc::clone);
        let (marked, done) = match done {
            Ok(done) => (Ok((done.begun, done.calls)), done.recorded.into_iter().map(Ok).collect()),
            Err(error) => (Err(Arc::clone(&error)), vec![Err(error); recorded.len()]),
        };
        // Who does not wait any more for what he is told has been stopped.
        if let Some(tell) = begun {
            let _ = tell.send(marked);
        }
        for (tell, done) in recorded.into_iter().zip(done) {
            let _ = tell.send(done);
        }
        for tell in rested {
            let _ = tell.send(failed.clone().map_or(Ok(()), Err));
        }
    }
}
