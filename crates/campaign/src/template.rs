//! Templates: a text with `{{column}}` where a row's own values go.
//!
//! A text never goes out with a hole in it: braces that don't pair are refused before anything is queued, and a row
//! without a value is refused instead of being sent with a blank.

use std::{borrow::Cow, fmt};

/// A text, with the columns that fill it.
///
/// ```
/// use campaign::template::Template;
/// let template = Template::parse("Hello {{First Name}}!")?;
/// let text = template.render(|column| (column == "firstname").then_some("Ada")).unwrap();
/// assert_eq!(text, "Hello Ada!");
/// # Ok::<(), campaign::template::TemplateError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Column(Column),
}

#[derive(Clone, PartialEq, Eq)]
struct Column {
    /// As written, for messages.
    name: String,
    /// As compared with the headers.
    key: String,
}

/// Why a text is no template. Positions count characters from 1.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("the {{{{ at character {at} has no }}}} after it")]
    Unclosed {
        /// Of the `{{`.
        at: usize,
    },
    /// `}}` without `{{`, most often a `{column}}`.
    #[error("the }}}} at character {at} has no {{{{ before it")]
    Unopened {
        /// Of the `}}`.
        at: usize,
    },
    /// `{{}}` or `{{ }}`.
    #[error("the {{{{ }}}} at character {at} names no column")]
    Nameless {
        /// Of the `{{`.
        at: usize,
    },
    /// A brace inside of `{{…}}`.
    #[error("there is a single {brace} at character {at}, inside of {{{{ }}}}")]
    Brace {
        /// Which one.
        brace: char,
        /// Of the brace.
        at: usize,
    },
    /// `{{column | filter}}`.
    #[error("there is a | at character {at}: filters are not supported, write {{{{column}}}} alone")]
    Filter {
        /// Of the `|`.
        at: usize,
    },
}

/// A row has nothing for a column of the text; an empty or blank value counts as nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the text needs a value for {{{{{column}}}}} and the row has none")]
pub struct MissingValue {
    /// The column as the template spells it.
    pub column: String,
}

/// The form in which column names are compared: case, spaces and underscores make no difference.
///
/// ```
/// assert_eq!(campaign::template::header_key(" First_Name "), campaign::template::header_key("FIRST NAME"));
/// ```
pub fn header_key(name: &str) -> String {
    name.chars().filter(|c| !c.is_whitespace() && *c != '_').flat_map(char::to_lowercase).collect()
}

impl Template {
    /// Reads a text; a text without `{{` is a template without columns.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut reader = Reader { text, at: 0 };
        let mut pieces = Vec::new();
        while let Some(piece) = reader.piece()? {
            pieces.push(piece);
        }
        Ok(Self { pieces })
    }

    /// The columns that the text needs, each once, in order of appearance, as [`header_key`] writes them.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        let columns = || self.pieces.iter().filter_map(Piece::column);
        columns()
            .enumerate()
            .filter(move |(n, column)| !columns().take(*n).any(|earlier| earlier.key == column.key))
            .map(|(_, column)| column.key.as_str())
    }

    /// The text is the same for every row.
    pub fn is_plain(&self) -> bool {
        self.pieces.iter().all(|piece| piece.column().is_none())
    }

    /// Fills the text with a row's values. `value` is asked by [`header_key`].
    pub fn render<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Result<String, MissingValue> {
        let mut text = String::new();
        for piece in &self.pieces {
            text.push_str(match piece {
                Piece::Literal(literal) => literal,
                Piece::Column(column) => value(&column.key)
                    .filter(|value| !value.trim().is_empty())
                    .ok_or_else(|| MissingValue { column: column.name.clone() })?,
            });
        }
        Ok(text)
    }
}

/// Texts are personal: only the shape is shown.
impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Literal(literal) => Cow::Owned(format!("{} bytes", literal.len())),
            Piece::Column(column) => Cow::Borrowed(column.name.as_str()),
        });
        f.debug_tuple("Template").field(&pieces.collect::<Vec<_>>()).finish()
    }
}

impl Piece {
    fn column(&self) -> Option<&Column> {
        match self {
            Self::Column(column) => Some(column),
            Self::Literal(_) => None,
        }
    }
}

struct Reader<'t> {
    text: &'t str,
    /// Byte offset of what is still to be read.
    at: usize,
}

impl Reader<'_> {
    fn piece(&mut self) -> Result<Option<Piece>, TemplateError> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        if let Some(inside) = rest.strip_prefix("{{") {
            let len = inside.find("}}").ok_or_else(|| TemplateError::Unclosed { at: self.character(self.at) })?;
            let column = self.placeholder(self.at + 2, &inside[..len])?;
            self.at += 2 + len + 2;
            return Ok(Some(Piece::Column(column)));
        }
        let literal = &rest[..rest.find("{{").unwrap_or(rest.len())];
        if let Some(offset) = literal.find("}}") {
            return Err(TemplateError::Unopened { at: self.character(self.at + offset) });
        }
        self.at += literal.len();
        Ok(Some(Piece::Literal(literal.to_owned())))
    }

    /// What stands between `{{` and `}}`, starting at byte `start`.
    fn placeholder(&self, start: usize, inside: &str) -> Result<Column, TemplateError> {
        // The first of them is the one to name: in `{{a {{b}}` it is the second pair that is wrong.
        if let Some((offset, found)) = inside.char_indices().find(|(_, c)| matches!(c, '{' | '}' | '|')) {
            let at = self.character(start + offset);
            return Err(if found == '|' {
                TemplateError::Filter { at }
            } else {
                TemplateError::Brace { brace: found, at }
            });
        }
        let (name, key) = (inside.trim().to_owned(), header_key(inside));
        if key.is_empty() {
            return Err(TemplateError::Nameless { at: self.character(start - 2) });
        }
        Ok(Column { name, key })
    }

    fn character(&self, byte: usize) -> usize {
        self.text[..byte].chars().count() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn render(template: &str, values: &[(&str, &'static str)]) -> Result<String, MissingValue> {
        let find = |column: &str| values.iter().find(|(key, _)| *key == column).map(|(_, value)| *value);
        Template::parse(template).unwrap().render(find)
    }

    #[test]
    fn columns_are_named_as_headers_are() {
        let values = [("firstname", "Ada"), ("slot", "9:30")];
        for template in ["{{first_name}}, {{slot}}", "{{ First Name }}, {{SLOT}}", "{{FIRSTNAME}}, {{\tslot\t}}"] {
            assert_eq!(render(template, &values).unwrap(), "Ada, 9:30");
        }
        let template = Template::parse("{{b}} {{a}} {{ B }} {{c}}").unwrap();
        assert_eq!(template.columns().collect::<Vec<_>>(), ["b", "a", "c"]);
        assert!(!template.is_plain());
    }

    #[test]
    fn a_value_is_never_read_as_a_template_again() {
        assert_eq!(render("{{a}}", &[("a", "{{b}}"), ("b", "no")]).unwrap(), "{{b}}");
    }

    #[test]
    fn a_missing_or_blank_value_is_named_as_the_template_spells_it() {
        let missing = MissingValue { column: "First_Name".to_owned() };
        assert_eq!(render("Hi {{ First_Name }}", &[]), Err(missing.clone()));
        assert_eq!(render("Hi {{ First_Name }}", &[("firstname", "")]), Err(missing.clone()));
        assert_eq!(render("Hi {{ First_Name }}", &[("firstname", " \u{a0} ")]), Err(missing.clone()));
        let message = missing.to_string();
        assert_eq!(message, "the text needs a value for {{First_Name}} and the row has none");
    }

    #[test]
    fn mistakes_are_shown_at_their_character() {
        use TemplateError::{Brace, Filter, Nameless, Unclosed, Unopened};
        let table = [
            ("né {{name", Unclosed { at: 4 }),
            ("{{", Unclosed { at: 1 }),
            ("{{name}", Unclosed { at: 1 }),
            ("Hi {name}}!", Unopened { at: 9 }),
            ("{{a}} }}", Unopened { at: 7 }),
            ("é{{ _ }}", Nameless { at: 2 }),
            ("{{}}", Nameless { at: 1 }),
            ("{{a {{b}}", Brace { brace: '{', at: 5 }),
            ("{{{a}}}", Brace { brace: '{', at: 3 }),
            ("{{a}b}}", Brace { brace: '}', at: 4 }),
            ("{{ a | default(\"you\") }}", Filter { at: 6 }),
        ];
        for (text, error) in table {
            assert_eq!(Template::parse(text).unwrap_err(), error, "{text:?}");
        }
        assert_eq!(Template::parse("Hi {{name").unwrap_err().to_string(), "the {{ at character 4 has no }} after it");
    }

    #[test]
    fn single_braces_are_text() {
        assert_eq!(render("{a} } {", &[]).unwrap(), "{a} } {");
    }

    #[test]
    fn debug_shows_no_text() {
        let shown = format!("{:?}", Template::parse("your code is 1234, {{name}}").unwrap());
        assert!(!shown.contains("1234") && shown.contains("name"), "{shown}");
    }

    proptest! {
        #[test]
        fn a_text_without_double_braces_is_sent_as_it_stands(text in "[^{}]{0,80}") {
            let template = Template::parse(&text).unwrap();
            prop_assert!(template.is_plain());
            prop_assert_eq!(template.render(|_| None).unwrap(), text);
        }

        #[test]
        fn what_is_rendered_is_the_pieces_in_order(
            pieces in prop::collection::vec(("[^{}]{0,9}", "[a-z]{1,5}"), 0..6), tail in "[^{}]{0,9}",
        ) {
            let written: String = pieces.iter().map(|(text, column)| format!("{text}{{{{{column}}}}}")).collect();
            let expected: String = pieces.iter().map(|(text, _)| format!("{text}value")).collect();
            let rendered = Template::parse(&(written + &tail)).unwrap().render(|_| Some("value")).unwrap();
            prop_assert_eq!(rendered, expected + &tail);
        }

        #[test]
        fn any_text_parses_or_is_refused_at_a_character_of_it(text in "[{}|a é]{0,20}") {
            use TemplateError::{Brace, Filter, Nameless, Unclosed, Unopened};
            match Template::parse(&text) {
                Ok(template) => prop_assert!(template.render(|_| Some("x")).is_ok()),
                Err(Unclosed { at } | Unopened { at } | Nameless { at } | Brace { at, .. } | Filter { at }) => {
                    let found = text.chars().nth(at - 1);
                    prop_assert!(matches!(found, Some('{' | '}' | '|')), "{at}: {found:?}");
                }
            }
        }
    }
}
