//! Texts: encoding and segments.
//!
//! What a text costs is the number of its segments, counted here as a handset and a carrier count them: with the
//! padding that arises where a character would otherwise lie across a segment border.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// How a text is encoded on the air (3GPP TS 23.038).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// The 7-bit default alphabet: 160 in one segment, 153 in each of several.
    Gsm7,
    /// UTF-16: 70 in one segment, 67 in each of several.
    Ucs2,
}

impl Encoding {
    /// The name that the ledger stores and reports print.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gsm7 => "gsm7",
            Self::Ucs2 => "ucs2",
        }
    }

    /// Units that fit into a text of one segment.
    pub fn units_alone(self) -> u32 {
        match self {
            Self::Gsm7 => 160,
            Self::Ucs2 => 70,
        }
    }

    /// Units that fit into each segment of a longer text: six bytes go to the header that joins them.
    pub fn units_joined(self) -> u32 {
        match self {
            Self::Gsm7 => 153,
            Self::Ucs2 => 67,
        }
    }

    /// Units that a character takes; it is never split over two segments.
    fn units_of(self, c: char) -> u32 {
        match self {
            Self::Gsm7 if is_extension(c) => 2,
            Self::Gsm7 => 1,
            Self::Ucs2 if u32::from(c) > 0xFFFF => 2,
            Self::Ucs2 => 1,
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no encoding.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no encoding of a text; gsm7 and ucs2 are")]
pub struct UnknownEncoding(String);

impl FromStr for Encoding {
    type Err = UnknownEncoding;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Gsm7, Self::Ucs2].into_iter().find(|e| e.name() == name).ok_or_else(|| UnknownEncoding(name.to_owned()))
    }
}

/// What a text takes on the air.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TextStats {
    /// GSM-7 if every character of it is in that alphabet.
    pub encoding: Encoding,
    /// Septets (GSM-7, where `€[]{}\|^~` take two) or UTF-16 code units (UCS-2).
    pub units: u32,
    /// What is paid for. An empty text has none.
    pub segments: u32,
}

impl TextStats {
    /// Counts a text as it would be sent.
    ///
    /// ```
    /// use campaign::text::{Encoding, TextStats};
    /// let stats = TextStats::of("It’s ready"); // a curly quote
    /// assert_eq!((stats.encoding, stats.units, stats.segments), (Encoding::Ucs2, 10, 1));
    /// ```
    /// Source: 3GPP TS 23.038 (alphabets), 23.040 §9.2.3.24.1 (joined texts).
    pub fn of(text: &str) -> Self {
        let encoding = if text.chars().all(is_gsm7) { Encoding::Gsm7 } else { Encoding::Ucs2 };
        Self::in_encoding(text, encoding)
    }

    /// Segments that the text takes over those that it would take if each character that forces UCS-2 were replaced by a
    /// plain one: what these characters cost.
    pub fn extra_segments(text: &str) -> u32 {
        let replaced = Self::in_encoding(text, Encoding::Gsm7);
        Self::of(text).segments.saturating_sub(replaced.segments)
    }

    fn in_encoding(text: &str, encoding: Encoding) -> Self {
        let (mut units, mut joined, mut used) = (0_u32, 0_u32, encoding.units_joined());
        for c in text.chars() {
            let width = encoding.units_of(c);
            units = units.saturating_add(width);
            used += width;
            // The character starts a new segment where it doesn't fit whole.
            if used > encoding.units_joined() {
                joined = joined.saturating_add(1);
                used = width;
            }
        }
        let segments = if units > encoding.units_alone() { joined } else { joined.min(1) };
        Self { encoding, units, segments }
    }
}

/// The characters that take a text out of GSM-7, each once, in order of appearance: what a preview shows to blame.
pub fn forcing_ucs2(text: &str) -> Vec<char> {
    let mut forcing = Vec::new();
    for c in text.chars() {
        if !is_gsm7(c) && !forcing.contains(&c) {
            forcing.push(c);
        }
    }
    forcing
}

fn is_gsm7(c: char) -> bool {
    is_basic(c) || is_extension(c)
}

/// The default alphabet without its escape (TS 23.038 §6.2.1).
fn is_basic(c: char) -> bool {
    match c {
        '\n' | '\r' | ' '..='_' => !matches!(c, '[' | '\\' | ']' | '^'),
        'a'..='z' => true,
        _ => "£¥èéùìòÇØøÅåΔΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà".contains(c),
    }
}

/// The extension table: an escape and a character (TS 23.038 §6.2.1.1).
fn is_extension(c: char) -> bool {
    matches!(c, '\u{c}' | '^' | '{' | '}' | '\\' | '[' | '~' | ']' | '|' | '€')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// TS 23.038 §6.2.1, row by row as the standard prints it (column 0 to 7), the escape left out.
    const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?\
                         ¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
    const EXTENSION: &str = "\u{c}^{}\\[~]|€";

    fn stats(text: &str) -> (Encoding, u32, u32) {
        let TextStats { encoding, units, segments } = TextStats::of(text);
        (encoding, units, segments)
    }

    #[test]
    fn the_alphabet_is_the_table_of_the_standard_and_nothing_else() {
        assert_eq!(BASIC.chars().count(), 127);
        for c in '\0'..=char::MAX {
            assert_eq!(is_basic(c), BASIC.contains(c), "basic: {c:?}");
            assert_eq!(is_extension(c), EXTENSION.contains(c), "extension: {c:?}");
        }
    }

    #[test]
    fn texts_are_counted_as_the_standard_counts_them() {
        use Encoding::{Gsm7, Ucs2};
        let table = [
            (String::new(), (Gsm7, 0, 0)),
            ("a".repeat(160), (Gsm7, 160, 1)),
            ("a".repeat(161), (Gsm7, 161, 2)),
            ("a".repeat(306), (Gsm7, 306, 2)),
            ("a".repeat(307), (Gsm7, 307, 3)),
            ("€".repeat(80), (Gsm7, 160, 1)),
            ("€".repeat(81), (Gsm7, 162, 2)),
            // 152 septets, then an escape pair that must not be split: the segment ends one short.
            ("a".repeat(152) + "€" + &"a".repeat(152), (Gsm7, 306, 3)),
            ("a".repeat(151) + "€" + &"a".repeat(153), (Gsm7, 306, 2)),
            ("é".repeat(160), (Gsm7, 160, 1)),
            (EXTENSION.to_owned(), (Gsm7, 20, 1)),
            // A small c with cedilla is not in the alphabet, the capital is.
            ("Ç".to_owned(), (Gsm7, 1, 1)),
            ("ç".to_owned(), (Ucs2, 1, 1)),
            ("’".repeat(70), (Ucs2, 70, 1)),
            ("’".repeat(71), (Ucs2, 71, 2)),
            ("’".repeat(134), (Ucs2, 134, 2)),
            ("’".repeat(135), (Ucs2, 135, 3)),
            ("😀".repeat(35), (Ucs2, 70, 1)),
            ("😀".repeat(36), (Ucs2, 72, 2)),
            // 66 units, then a surrogate pair that must not be split.
            ("a".repeat(66) + "😀" + &"a".repeat(66), (Ucs2, 134, 3)),
            ("a".repeat(65) + "😀" + &"a".repeat(67), (Ucs2, 134, 2)),
            // Nothing of the extension table counts double once the text is UCS-2.
            ("€’".to_owned(), (Ucs2, 2, 1)),
        ];
        for (text, expected) in table {
            assert_eq!(stats(&text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_characters_to_blame_are_named_once_and_in_order() {
        assert_eq!(forcing_ucs2("It’s “ready” – isn’t it? 😀"), ['’', '“', '”', '–', '😀']);
        assert!(forcing_ucs2("plain [€]").is_empty());
    }

    #[test]
    fn the_characters_to_blame_cost_what_a_plain_one_would_save() {
        assert_eq!(TextStats::extra_segments(&("’".to_owned() + &"a".repeat(100))), 1);
        assert_eq!(TextStats::extra_segments("It’s"), 0);
        assert_eq!(TextStats::extra_segments(&"a".repeat(500)), 0);
        assert_eq!(TextStats::extra_segments(&("😀".to_owned() + &"a".repeat(300))), 3);
    }

    #[test]
    fn every_name_parses_back() {
        for encoding in [Encoding::Gsm7, Encoding::Ucs2] {
            assert_eq!(encoding.name().parse(), Ok(encoding));
            assert_eq!(serde_json::to_string(&encoding).unwrap(), format!("{:?}", encoding.name()));
        }
        assert!("utf8".parse::<Encoding>().is_err());
    }

    /// Cuts a text into segments, character by character: slow, and plainly right.
    fn cut(text: &str) -> Vec<String> {
        let stats = TextStats::of(text);
        let whole = if stats.units <= stats.encoding.units_alone() {
            stats.encoding.units_alone()
        } else {
            stats.encoding.units_joined()
        };
        let width = |c: char| match stats.encoding {
            Encoding::Gsm7 => 1 + u32::from(EXTENSION.contains(c)),
            Encoding::Ucs2 => u32::try_from(c.len_utf16()).unwrap(),
        };
        let mut cut: Vec<String> = Vec::new();
        for c in text.chars() {
            let with_c = cut.last().cloned().unwrap_or_default() + &c.to_string();
            let units: u32 = with_c.chars().map(width).sum();
            if !cut.is_empty() && units <= whole {
                *cut.last_mut().unwrap() = with_c;
            } else {
                cut.push(c.to_string());
            }
        }
        cut
    }

    fn texts() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z€^]{0,500}", "[a-z€’😀]{0,200}", ".{0,200}"]
    }

    proptest! {
        #[test]
        fn segments_are_as_many_as_a_plain_cutting_gives(text in texts()) {
            let cut = cut(&text);
            prop_assert_eq!(cut.concat(), text.clone());
            prop_assert_eq!(TextStats::of(&text).segments as usize, cut.len());
        }

        #[test]
        fn a_text_is_ucs2_exactly_when_a_character_forces_it(text in texts()) {
            let stats = TextStats::of(&text);
            prop_assert_eq!(stats.encoding == Encoding::Ucs2, !forcing_ucs2(&text).is_empty());
            if stats.encoding == Encoding::Ucs2 {
                prop_assert_eq!(stats.units as usize, text.encode_utf16().count());
            }
        }

        #[test]
        fn a_longer_text_never_takes_fewer_segments(text in texts(), tail in ".") {
            prop_assert!(TextStats::of(&(text.clone() + &tail)).segments >= TextStats::of(&text).segments);
        }
    }
}
