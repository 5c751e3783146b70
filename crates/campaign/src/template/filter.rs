//! Filters: what a template does to a value before it is inserted.

use super::TemplateError;
use std::borrow::Cow;

/// What there is, for the sentence about what there isn't.
pub(super) const ALL: &str = "the filters are first_name, upper and default(\"…\")";

/// One filter of a column.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Filter {
    /// What stands in for a value that is missing.
    Default(String),
    /// The first name out of a full name.
    FirstName,
    /// In capitals.
    Upper,
}

impl Filter {
    /// A value that is missing stays so until a default.
    pub(super) fn apply<'v>(&'v self, value: Option<Cow<'v, str>>) -> Option<Cow<'v, str>> {
        match self {
            Self::Default(stand_in) => Some(value.unwrap_or(Cow::Borrowed(stand_in))),
            Self::FirstName => first_name(&value?).map(Cow::Owned),
            Self::Upper => Some(Cow::Owned(value?.to_uppercase())),
        }
    }
}

/// Reads `| filter | filter("…")`; `character` says where a byte of it stands in the text.
pub(super) fn parse(written: &str, character: impl Fn(usize) -> usize) -> Result<Vec<Filter>, TemplateError> {
    let mut filters = Vec::new();
    let mut rest = written;
    let at = |rest: &str| character(written.len() - rest.len());
    while let Some(after_bar) = rest.strip_prefix('|') {
        let bar = at(rest);
        rest = after_bar.trim_start();
        let begin = at(rest);
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let (name, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        filters.push(match (name, after.chars().next()) {
            ("", None | Some('|')) => return Err(TemplateError::NoFilter { at: bar }),
            ("", Some(c)) => return Err(TemplateError::UnknownFilter { name: c.to_string(), at: begin }),
            ("first_name", _) => {
                rest = after;
                Filter::FirstName
            }
            ("upper", _) => {
                rest = after;
                Filter::Upper
            }
            ("default", _) => {
                let (stand_in, after) = argument(after).ok_or(TemplateError::NoDefault { at: begin })?;
                rest = after;
                Filter::Default(stand_in)
            }
            _ => return Err(TemplateError::UnknownFilter { name: name.to_owned(), at: begin }),
        });
        rest = rest.trim_start();
        if let Some(found) = rest.chars().next().filter(|c| *c != '|') {
            return Err(TemplateError::AfterFilter { found, at: at(rest) });
        }
    }
    Ok(filters)
}

/// Reads `("…")` or `('…')`, in which a backslash goes before the quotation mark and before itself. Gives what follows.
fn argument(written: &str) -> Option<(String, &str)> {
    let quoted = written.trim_start().strip_prefix('(')?.trim_start();
    let mark = quoted.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut text = String::new();
    let mut chars = quoted[1..].char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == mark {
            let after = quoted[1 + at + 1..].trim_start().strip_prefix(')')?;
            return Some((text, after));
        }
        let escaped = chars.next_if(|(_, next)| c == '\\' && (*next == mark || *next == '\\'));
        text.push(escaped.map_or(c, |(_, next)| next));
    }
    None
}

/// Forms of address that come before a name.
const TITLES: [&str; 23] = [
    "mr",
    "mrs",
    "ms",
    "miss",
    "mx",
    "master",
    "dr",
    "doctor",
    "prof",
    "professor",
    "rev",
    "revd",
    "reverend",
    "sir",
    "dame",
    "lord",
    "lady",
    "mme",
    "mlle",
    "monsieur",
    "madame",
    "herr",
    "frau",
];

/// What comes after a name and its comma without being one.
const SUFFIXES: [&str; 15] =
    ["jr", "sr", "ii", "iii", "iv", "esq", "phd", "mba", "bsc", "msc", "mbe", "obe", "cbe", "qc", "kc"];

/// The first name out of a full name, or nothing if there is none in it.
///
/// What stands after a comma comes first (`Lovelace, Ada`), unless it is a suffix (`Ada Lovelace, PhD`). Titles are passed
/// over (`Dr Ada Lovelace`); an initial is no first name. A name all in small letters, or all in more than two capitals, is
/// capitalised (`ada`, `JEAN-LUC`); any other spelling is the person's own and stays (`McKenzie`, `JP`).
fn first_name(full: &str) -> Option<String> {
    let plain = |word: &str| word.trim_matches('.').to_lowercase();
    let names = |part: &str| -> Option<String> {
        part.split_whitespace().find(|word| !TITLES.contains(&plain(word).as_str())).map(str::to_owned)
    };
    let (before, after) = full.split_once(',').unwrap_or((full, ""));
    let after = names(after).filter(|word| !SUFFIXES.contains(&plain(&word.replace([',', '.'], "")).as_str()));
    let word = after.or_else(|| names(before))?;
    let word = word.trim_matches(|c: char| matches!(c, ',' | ';' | '"' | '(' | ')'));
    let letters = word.chars().filter(|c| c.is_alphabetic()).count();
    let is_initial = letters == 1 && word.chars().any(|c| c.is_lowercase() || c.is_uppercase());
    (letters > 0 && !is_initial).then(|| capitalised(word, letters))
}

/// Capitalises each part of a name that was typed without care.
fn capitalised(word: &str, letters: usize) -> String {
    let shouted = letters > 2 && !word.chars().any(char::is_lowercase);
    let whispered = !word.chars().any(char::is_uppercase);
    if !shouted && !whispered {
        return word.to_owned();
    }
    let mut capital = true;
    let mut name = String::with_capacity(word.len());
    for c in word.chars() {
        if capital {
            name.extend(c.to_uppercase());
        } else {
            name.extend(c.to_lowercase());
        }
        capital = matches!(c, '-' | '\'' | '’');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::first_name;

    #[test]
    fn the_first_name_is_found_where_people_write_it() {
        for (full, first) in [
            ("Ada Lovelace", "Ada"),
            ("  Ada   Lovelace ", "Ada"),
            ("Ada", "Ada"),
            ("Dr Ada Lovelace", "Ada"),
            ("dr. ada lovelace", "Ada"),
            ("Prof. Dr. Ada Lovelace", "Ada"),
            ("Lovelace, Ada", "Ada"),
            ("LOVELACE, ADA", "Ada"),
            ("Lovelace, Dr Ada King", "Ada"),
            ("Ada Lovelace, PhD", "Ada"),
            ("Ada Lovelace, Ph.D.", "Ada"),
            ("Martin King, Jr.", "Martin"),
            ("ada", "Ada"),
            ("jean-luc picard", "Jean-Luc"),
            ("JEAN-LUC PICARD", "Jean-Luc"),
            ("o'neil", "O'Neil"),
            ("McKenzie Smith", "McKenzie"),
            ("JP Morgan", "JP"),
            ("élodie", "Élodie"),
            ("ŁUKASZ", "Łukasz"),
            ("李 明", "李"),
            ("(Ada) Lovelace", "Ada"),
        ] {
            assert_eq!(first_name(full).as_deref(), Some(first), "{full:?}");
        }
    }

    #[test]
    fn what_is_no_first_name_is_not_made_one() {
        for full in ["", " ", "Dr", "Mr.", "A. Lovelace", "A Lovelace", "J", ",", "Lovelace, A.", "Mrs, ", "--", "42"] {
            assert_eq!(first_name(full), None, "{full:?}");
        }
    }
}
