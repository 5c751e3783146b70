//! What took how long: spans of the three things that a campaign is made of, for whoever collects traces.

#[cfg(feature = "otlp")]
use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Instant, SystemTime},
};

/// Something that is being done. Its words are static and all else is counts, so that no number, text, sender or campaign can
/// get into a trace. Dropped before its end it is `failed`. Without the feature `otlp` it is nothing at all.
#[must_use = "a span lasts until it is ended or dropped"]
#[derive(Debug)]
pub struct Span {
    #[cfg(feature = "otlp")]
    running: Option<Running>,
}

#[cfg(feature = "otlp")]
#[derive(Debug)]
struct Running {
    name: &'static str,
    counts: Vec<(&'static str, u64)>,
    began: SystemTime,
    since: Instant,
}

/// Begins a span, if spans are exported.
pub fn span(name: &'static str) -> Span {
    #[cfg(feature = "otlp")]
    {
        let running = || Running { name, counts: Vec::new(), began: SystemTime::now(), since: Instant::now() };
        Span { running: EXPORTED.load(Relaxed).then(running) }
    }
    #[cfg(not(feature = "otlp"))]
    {
        _ = name;
        Span {}
    }
}

impl Span {
    /// Notes how many of something it was about.
    pub fn count(&mut self, what: &'static str, many: u64) {
        #[cfg(feature = "otlp")]
        if let Some(running) = &mut self.running {
            running.counts.push((what, many));
        }
        #[cfg(not(feature = "otlp"))]
        let _ = (what, many);
    }

    /// Ends it.
    pub fn end(self, outcome: &'static str) {
        #[cfg(feature = "otlp")]
        {
            let mut span = self;
            span.finish(outcome);
        }
        #[cfg(not(feature = "otlp"))]
        let _ = outcome;
    }

    #[cfg(feature = "otlp")]
    fn finish(&mut self, outcome: &'static str) {
        let Some(Running { name, counts, began, since }) = self.running.take() else { return };
        let mut finished = FINISHED.lock().unwrap_or_else(PoisonError::into_inner);
        if finished.len() == FINISHED_MAX {
            finished.pop_front();
            DROPPED.fetch_add(1, Relaxed);
        }
        finished.push_back(Finished { name, counts, outcome, began, ended: began + since.elapsed() });
    }
}

#[cfg(feature = "otlp")]
impl Drop for Span {
    fn drop(&mut self) {
        self.finish("failed");
    }
}

/// A span that is over.
#[cfg(feature = "otlp")]
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) name: &'static str,
    pub(crate) counts: Vec<(&'static str, u64)>,
    pub(crate) outcome: &'static str,
    pub(crate) began: SystemTime,
    pub(crate) ended: SystemTime,
}

/// Spans that wait to be exported: while the collector is away the oldest go first.
#[cfg(feature = "otlp")]
const FINISHED_MAX: usize = 2_048;

#[cfg(feature = "otlp")]
static FINISHED: Mutex<VecDeque<Finished>> = Mutex::new(VecDeque::new());

#[cfg(feature = "otlp")]
static EXPORTED: AtomicBool = AtomicBool::new(false);

#[cfg(feature = "otlp")]
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// From now on spans are kept for the export.
#[cfg(feature = "otlp")]
pub(crate) fn keep() {
    EXPORTED.store(true, Relaxed);
}

/// Takes what waits, at most so many, and how many were dropped since the last time.
#[cfg(feature = "otlp")]
pub(crate) fn take(at_most: usize) -> (Vec<Finished>, u64) {
    let mut finished = FINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    let many = finished.len().min(at_most);
    (finished.drain(..many).collect(), DROPPED.swap(0, Relaxed))
}
