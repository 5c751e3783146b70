//! Texts of a file, each once as far as memory is bounded.

use campaign::{
    template::{MissingValue, Template, TemplateError},
    text::{Encoding, TextStats},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Distinct texts that are remembered; one that comes again after so many others is stored a second time.
const TEXTS_MAX: usize = 10_000;
const TEMPLATES_MAX: usize = 1_000;

/// A rendered text.
pub(crate) struct Text {
    /// The row that used it first: its identity within the file.
    pub(crate) first_row: u32,
    pub(crate) body: Arc<str>,
    pub(crate) stats: TextStats,
    /// What the characters that force UCS-2 cost.
    pub(crate) extra_segments: u32,
    brought: AtomicBool,
}

impl Text {
    /// True once: for the chunk that brings it to the ledger.
    pub(crate) fn is_brought_now(&self) -> bool {
        !self.brought.swap(true, Ordering::Relaxed)
    }
}

/// Why a row has no text.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NoText {
    #[error("the text is empty")]
    Empty,
    #[error(transparent)]
    Template(TemplateError),
    #[error("the text needs {{{{{0}}}}}, and the file has no such column")]
    UnknownColumn(String),
    #[error(transparent)]
    Missing(MissingValue),
    #[error("the text has {segments} segments, and {max} are allowed")]
    TooLong { segments: u32, max: u32 },
}

impl NoText {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Empty => "text_empty",
            Self::Template(_) => "text_template",
            Self::UnknownColumn(_) | Self::Missing(_) => "value_missing",
            Self::TooLong { .. } => "text_too_long",
        }
    }
}

/// Renders and remembers texts.
pub(crate) struct Texts {
    max_segments: u32,
    templates: HashMap<String, Result<Arc<Template>, NoText>>,
    known: HashMap<Arc<str>, Arc<Text>>,
    order: VecDeque<Arc<str>>,
    /// That of the row before: mostly all rows have the same.
    last: Option<Arc<Text>>,
    distinct: u64,
}

impl Texts {
    pub(crate) fn new(max_segments: u32) -> Self {
        Self {
            max_segments,
            templates: HashMap::new(),
            known: HashMap::new(),
            order: VecDeque::new(),
            last: None,
            distinct: 0,
        }
    }

    /// How many different texts there were; one that came again after [`TEXTS_MAX`] others counts again.
    pub(crate) fn distinct(&self) -> u64 {
        self.distinct
    }

    /// The text of row `row` as `written`, filled with the row's values; `has_column` says of which columns there are any.
    pub(crate) fn of_row<'v>(
        &mut self,
        row: u32,
        written: &str,
        has_column: impl Fn(&str) -> bool,
        value: impl Fn(&str) -> Option<&'v str>,
    ) -> Result<Arc<Text>, NoText> {
        if written.trim().is_empty() {
            return Err(NoText::Empty);
        }
        // Without a pair of braces nothing is to be filled, and no template to be remembered.
        if !written.contains("{{") && !written.contains("}}") {
            return self.interned(row, written);
        }
        if !self.templates.contains_key(written) {
            if self.templates.len() >= TEMPLATES_MAX {
                self.templates.clear();
            }
            self.templates.insert(written.to_owned(), template(written, has_column).map(Arc::new));
        }
        let template = match &self.templates[written] {
            Ok(template) => Arc::clone(template),
            Err(error) => return Err(error.clone()),
        };
        let body = template.render(value).map_err(NoText::Missing)?;
        self.interned(row, &body)
    }

    fn interned(&mut self, row: u32, body: &str) -> Result<Arc<Text>, NoText> {
        if let Some(text) = self.last.as_ref().filter(|text| *text.body == *body) {
            return Ok(Arc::clone(text));
        }
        if let Some(text) = self.known.get(body) {
            self.last = Some(Arc::clone(text));
            return Ok(Arc::clone(text));
        }
        let stats = TextStats::of(body);
        if stats.segments > self.max_segments {
            return Err(NoText::TooLong { segments: stats.segments, max: self.max_segments });
        }
        if self.known.len() >= TEXTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        let extra_segments = match stats.encoding {
            Encoding::Gsm7 => 0,
            Encoding::Ucs2 => TextStats::extra_segments(body),
        };
        let (body, brought): (Arc<str>, _) = (body.into(), AtomicBool::new(false));
        let text = Arc::new(Text { first_row: row, body: Arc::clone(&body), stats, extra_segments, brought });
        self.known.insert(Arc::clone(&body), Arc::clone(&text));
        self.order.push_back(body);
        self.distinct += 1;
        self.last = Some(Arc::clone(&text));
        Ok(text)
    }
}

/// Reads a template whose columns there are: a default stands in for a value that is missing, never for a column that is
/// misspelt.
fn template(written: &str, has_column: impl Fn(&str) -> bool) -> Result<Template, NoText> {
    let template = Template::parse(written).map_err(NoText::Template)?;
    let unknown = template.columns().find(|column| !has_column(column)).map(str::to_owned);
    unknown.map_or(Ok(template), |column| Err(NoText::UnknownColumn(column)))
}
