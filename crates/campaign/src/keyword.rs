//! Words by which a person stops texts, or has them again.

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyword {
    /// No more texts.
    Stop,
    /// Texts again.
    Start,
}

const STOP: [&str; 6] = ["stop", "stopall", "unsubscribe", "cancel", "end", "quit"];
const START: [&str; 2] = ["start", "unstop"];

impl Keyword {
    /// Reads a message that is nothing but a keyword: in any case, with punctuation and blanks around it or within it.
    /// A sentence that begins with one is no keyword, whatever it means.
    ///
    /// ```
    /// use campaign::keyword::Keyword;
    /// assert_eq!(Keyword::of("“Stop.”"), Some(Keyword::Stop));
    /// assert_eq!(Keyword::of("stop by tomorrow please"), None);
    /// ```
    pub fn of(message: &str) -> Option<Self> {
        let longest = "unsubscribe".len();
        let mut word = String::with_capacity(longest);
        // `stop all` is `stopall`; `end` `quit` together are no word.
        for c in message.chars().filter(|c| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
            if word.len() > longest {
                return None;
            }
        }
        let is = |words: &[&str]| words.contains(&word.as_str());
        if is(&STOP) {
            Some(Self::Stop)
        } else if is(&START) {
            Some(Self::Start)
        } else {
            None
        }
    }

    /// As the ledger stores it: `stop` or `start`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_keyword_counts_in_any_case_and_with_anything_around_it() {
        for word in ["STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT"] {
            for written in [word.to_owned(), word.to_lowercase(), format!(" {word}.\r\n"), format!("“{word}”!!")] {
                assert_eq!(Keyword::of(&written), Some(Keyword::Stop), "{written:?}");
            }
        }
        for written in ["start", "START!", "(unstop)", " Un-Stop "] {
            assert_eq!(Keyword::of(written), Some(Keyword::Start), "{written:?}");
        }
        for written in ["stop all", "Stop-All.", "S T O P", "*stop*", "stop 🛑", "\u{feff}STOP\u{a0}"] {
            assert_eq!(Keyword::of(written), Some(Keyword::Stop), "{written:?}");
        }
    }

    #[test]
    fn a_sentence_is_no_keyword() {
        for written in [
            "stop by tomorrow please",
            "don't stop",
            "please stop",
            "stop stop",
            "stop2",
            "the end",
            "start stop",
            "end quit",
            "",
            " . ",
            "cancel my appointment",
            "остановить",
        ] {
            assert_eq!(Keyword::of(written), None, "{written:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_around_a_keyword_does_not_matter(before in "[\\p{P}\\p{Z}\\p{Sm}\\p{Sc}]{0,5}", after in "[\\p{P}\\p{Z}\\p{Sm}\\p{Sc}]{0,5}") {
            prop_assert_eq!(Keyword::of(&format!("{before}Stop{after}")), Some(Keyword::Stop));
            prop_assert_eq!(Keyword::of(&format!("{before}Stop{after}x")), None);
        }
    }
}
