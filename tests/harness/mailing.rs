//! A campaign file and what is to become of it.

use std::collections::BTreeMap;

/// A file of recipients, some of its rows wrong, and what the gateway is to be given of it.
#[derive(Clone, Debug)]
pub(crate) struct Mailing {
    pub(crate) csv: String,
    /// Text by number, in the gateway's spelling: each exactly once.
    pub(crate) valid: BTreeMap<String, String>,
    pub(crate) rows: u64,
    pub(crate) invalid: u64,
    pub(crate) duplicate: u64,
}

impl Mailing {
    /// `rows` lines in `texts` different texts. Each 997th has a number that can't be, each 1499th repeats the number
    /// above it in another spelling; whoever's number ends in 999 can't be reached.
    pub(crate) fn of(rows: u32, texts: u32) -> Self {
        Self::from(0, rows, texts)
    }

    /// The same of other people: those from the `first` on.
    pub(crate) fn from(first: u32, rows: u32, texts: u32) -> Self {
        let mut mailing = Self {
            csv: "destination,sender,text\n".to_owned(),
            valid: BTreeMap::new(),
            rows: u64::from(rows),
            invalid: 0,
            duplicate: 0,
        };
        let number = |n: u32| 7_400_000_000 + u64::from(n);
        for n in first..first + rows {
            let text = format!("Text {} of the campaign", n % texts);
            let destination = match n {
                n if n % 997 == 996 => {
                    mailing.invalid += 1;
                    "07700".to_owned()
                }
                n if n % 1499 == 1498 => {
                    mailing.duplicate += 1;
                    format!("+44 {}", number(n - 1))
                }
                n => {
                    mailing.valid.insert(format!("44{}", number(n)), text.clone());
                    format!("0{}", number(n))
                }
            };
            mailing.csv.push_str(&format!("{destination},ACME,{text}\n"));
        }
        mailing
    }

    /// Whether a line shows a number or a text of this file.
    pub(crate) fn is_in(line: &str) -> bool {
        line.contains("7400000") || line.contains("7400001") || line.contains("of the campaign")
    }
}
