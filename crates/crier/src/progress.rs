//! Live progress: a bar on a terminal, a line now and then elsewhere.

use crate::output::{self, BARS};
use campaign::RowState;
use indicatif::{ProgressBar, ProgressStyle};
use ledger::CampaignSummary;
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// Lines elsewhere than on a terminal come at most this often.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// How far some campaigns are.
pub(crate) enum Progress {
    Bar(ProgressBar),
    Lines { last: String, said: Option<Instant> },
}

impl Progress {
    /// Progress on stderr.
    pub(crate) fn start() -> Self {
        if std::io::stderr().is_terminal() {
            let template = "{bar:30} {pos}/{len} {msg}";
            let style = ProgressStyle::with_template(template).expect("the template is written right");
            Self::Bar(BARS.add(ProgressBar::new(0).with_style(style)))
        } else {
            Self::Lines { last: String::new(), said: None }
        }
    }

    /// How often there is something new to show.
    pub(crate) fn every(&self) -> Duration {
        match self {
            Self::Bar(_) => Duration::from_millis(400),
            Self::Lines { .. } => LINE_EVERY,
        }
    }

    /// Shows how far they are now.
    pub(crate) fn show(&mut self, summaries: &[CampaignSummary]) {
        let rows: u64 = summaries.iter().map(|summary| summary.rows).sum();
        let settled = rows - summaries.iter().map(CampaignSummary::open).sum::<u64>();
        let words = in_words(summaries);
        match self {
            Self::Bar(bar) => {
                bar.set_length(rows);
                bar.set_position(settled);
                bar.set_message(words);
            }
            Self::Lines { last, said } => {
                if words != *last && said.is_none_or(|said| said.elapsed() >= LINE_EVERY) {
                    output::say(format_args!("{}/{} rows done: {words}", output::count(settled), output::count(rows)));
                    (*last, *said) = (words, Some(Instant::now()));
                }
            }
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// `queued 10 · sent 5`.
pub(crate) fn in_words(summaries: &[CampaignSummary]) -> String {
    let counts = RowState::ALL.into_iter().filter_map(|state| {
        let rows: u64 = summaries.iter().map(|summary| summary.count(state)).sum();
        (rows > 0).then(|| format!("{state} {}", output::count(rows)))
    });
    counts.collect::<Vec<_>>().join(" · ")
}
