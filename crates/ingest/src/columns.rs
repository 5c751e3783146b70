//! What the columns of a header mean.

use crate::refusal::Refusal;
use campaign::outcome::fit_to_keep;
use csv::StringRecord;

/// A column that is more than a value for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Destination,
    Sender,
    Text,
    Campaign,
    Reference,
    SendAt,
    ValidUntil,
}

impl Meaning {
    /// By a [`normalised`] name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "destination" | "phone" | "phonenumber" | "mobile" | "msisdn" | "recipient" | "number" | "to" => {
                Self::Destination
            }
            "sender" | "source" | "from" | "senderid" => Self::Sender,
            "text" | "message" => Self::Text,
            "campaign" => Self::Campaign,
            "reference" => Self::Reference,
            "sendat" => Self::SendAt,
            "validuntil" => Self::ValidUntil,
            _ => return None,
        })
    }
}

/// A column name as names are compared: lower case, without blanks, underscores and hyphens.
pub(crate) fn normalised(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '_' | '-' | '\u{feff}'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Where each column is.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    names: Vec<String>,
    pub(crate) destination: usize,
    pub(crate) sender: Option<usize>,
    pub(crate) text: Option<usize>,
    pub(crate) campaign: Option<usize>,
    pub(crate) reference: Option<usize>,
    pub(crate) send_at: Option<usize>,
    pub(crate) valid_until: Option<usize>,
}

impl Columns {
    /// Reads a header.
    pub(crate) fn read(header: &StringRecord) -> Result<Self, Refusal> {
        let names: Vec<String> = header.iter().map(normalised).collect();
        if let Some(at) = names.iter().position(String::is_empty) {
            return Err(Refusal::UnnamedColumn { position: at + 1 });
        }
        let same = |a: &String, b: &String| a == b || Meaning::of(a).is_some_and(|m| Meaning::of(b) == Some(m));
        for (at, name) in names.iter().enumerate() {
            if let Some(earlier) = names[..at].iter().position(|earlier| same(earlier, name)) {
                let as_written = |at: usize| fit_to_keep(header.get(at).unwrap_or_default(), "");
                return Err(Refusal::SameColumns { first: as_written(earlier), second: as_written(at) });
            }
        }
        let place = |meaning| names.iter().position(|name| Meaning::of(name) == Some(meaning));
        let Some(destination) = place(Meaning::Destination) else {
            return Err(Refusal::NoDestination { found: list(header) });
        };
        Ok(Self {
            destination,
            sender: place(Meaning::Sender),
            text: place(Meaning::Text),
            campaign: place(Meaning::Campaign),
            reference: place(Meaning::Reference),
            send_at: place(Meaning::SendAt),
            valid_until: place(Meaning::ValidUntil),
            names,
        })
    }

    /// How many cells a row must have.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// The column that a text means by `name`.
    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        let name = normalised(name);
        self.names.iter().position(|column| *column == name)
    }
}

/// The names of a header, for a sentence; without phone numbers, which stand there when the header is missing.
pub(crate) fn list(header: &StringRecord) -> String {
    let shown = |name: &str| fit_to_keep(&name.trim().chars().take(40).collect::<String>(), "");
    let names: Vec<String> = header.iter().take(12).map(shown).collect();
    let more = if header.len() > names.len() { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(names: &[&str]) -> Result<Columns, Refusal> {
        Columns::read(&StringRecord::from(names.to_vec()))
    }

    #[test]
    fn names_are_compared_without_case_blanks_underscores_and_hyphens() {
        let columns = read(&["First Name", "PHONE_number", "Sender-ID", "Send At"]).unwrap();
        assert_eq!((columns.destination, columns.sender, columns.send_at), (1, Some(2), Some(3)));
        assert_eq!(columns.named("first_name"), Some(0));
    }

    #[test]
    fn a_header_that_leaves_a_doubt_is_refused() {
        let code = |names: &[&str]| read(names).unwrap_err().code();
        assert_eq!(code(&["phone", "text", "Mobile"]), "same_columns");
        assert_eq!(code(&["phone", "name", "NAME"]), "same_columns");
        assert_eq!(code(&["phone", " ", "text"]), "unnamed_column");
        assert_eq!(code(&["name", "text"]), "no_destination");
    }
}
