//! Templates: a text with `{{column}}` where a row's own values go, through filters where it says so.
//!
//! A text never goes out with a hole in it: braces that don't pair and filters that there are not are refused before
//! anything is queued, and a row without a value is refused instead of being sent with a blank, unless the template says
//! what stands in for it. A value is inserted as it is: braces in it mean nothing.

mod filter;

use filter::Filter;
use std::{borrow::Cow, fmt};

/// A text, with the columns that fill it.
///
/// ```
/// use campaign::template::Template;
/// let template = Template::parse("Hello {{Full Name | first_name | default(\"there\")}}!")?;
/// let text = template.render(|column| (column == "fullname").then_some("Dr Ada Lovelace")).unwrap();
/// assert_eq!(text, "Hello Ada!");
/// assert_eq!(template.render(|_| None).unwrap(), "Hello there!");
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
    /// Applied in this order.
    filters: Vec<Filter>,
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
    /// `{{column |}}`.
    #[error("the | at character {at} has no filter after it; {}", filter::ALL)]
    NoFilter {
        /// Of the `|`.
        at: usize,
    },
    /// `{{column | frist_name}}`.
    #[error("there is no filter {name:?} (at character {at}); {}", filter::ALL)]
    UnknownFilter {
        /// As written.
        name: String,
        /// Of its first letter.
        at: usize,
    },
    /// `{{column | default}}`, `{{column | default(you)}}`, `{{column | default(“you”)}}`.
    #[error("the filter at character {at} needs its text in straight quotes: default(\"there\")")]
    NoDefault {
        /// Of the filter's first letter.
        at: usize,
    },
    /// `{{column | upper("x")}}`, `{{column | upper lower}}`.
    #[error("the {found:?} at character {at} does not belong there; a filter is followed by | or }}}}")]
    AfterFilter {
        /// The character.
        found: char,
        /// Of the character.
        at: usize,
    },
    /// `{{column | default("you)}}`.
    #[error("the quotation mark at character {at} is never closed")]
    OpenQuote {
        /// Of the mark.
        at: usize,
    },
}

/// A row has nothing for a column of the text, and the text says nothing that stands in for it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum MissingValue {
    /// An empty or blank value counts as nothing.
    #[error("the text needs a value for {{{{{column}}}}} and the row has none")]
    Blank {
        /// The column as the template spells it.
        column: String,
    },
    /// The value has no word that [`Template`]'s `first_name` takes for one.
    #[error("the text needs a first name out of {{{{{column}}}}} and the row's value has none in it")]
    NoFirstName {
        /// The column as the template spells it.
        column: String,
    },
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
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Column(column) => text.push_str(&column.fill(value(&column.key))?),
            }
        }
        Ok(text)
    }
}

impl Column {
    fn fill<'v>(&'v self, value: Option<&'v str>) -> Result<Cow<'v, str>, MissingValue> {
        let given = value.filter(|value| !value.trim().is_empty()).map(Cow::Borrowed);
        let was_given = given.is_some();
        self.filters.iter().fold(given, |value, filter| filter.apply(value)).ok_or_else(|| {
            let column = self.name.clone();
            if was_given { MissingValue::NoFirstName { column } } else { MissingValue::Blank { column } }
        })
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
            let len = self.end(self.at + 2, inside)?;
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

    /// Where the `}}` is that ends what begins at byte `start`. One in the quotes of a filter ends nothing.
    fn end(&self, start: usize, inside: &str) -> Result<usize, TemplateError> {
        let mut filters = false;
        let mut quote: Option<(char, usize)> = None;
        let mut escaped = false;
        for (at, c) in inside.char_indices() {
            match quote {
                Some(_) if escaped => escaped = false,
                Some(_) if c == '\\' => escaped = true,
                Some((mark, _)) if c == mark => quote = None,
                Some(_) => {}
                None if inside[at..].starts_with("}}") => return Ok(at),
                None if filters && matches!(c, '"' | '\'') => quote = Some((c, at)),
                None => filters |= c == '|',
            }
        }
        Err(match quote {
            Some((_, at)) => TemplateError::OpenQuote { at: self.character(start + at) },
            None => TemplateError::Unclosed { at: self.character(start - 2) },
        })
    }

    /// What stands between `{{` and `}}`, starting at byte `start`.
    fn placeholder(&self, start: usize, inside: &str) -> Result<Column, TemplateError> {
        let written = inside.split('|').next().unwrap_or(inside);
        // The first of them is the one to name: in `{{a {{b}}` it is the second pair that is wrong.
        if let Some((offset, brace)) = written.char_indices().find(|(_, c)| matches!(c, '{' | '}')) {
            return Err(TemplateError::Brace { brace, at: self.character(start + offset) });
        }
        let (name, key) = (written.trim().to_owned(), header_key(written));
        if key.is_empty() {
            return Err(TemplateError::Nameless { at: self.character(start - 2) });
        }
        let filters = filter::parse(&inside[written.len()..], |offset| self.character(start + written.len() + offset))?;
        Ok(Column { name, key, filters })
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
        let missing = MissingValue::Blank { column: "First_Name".to_owned() };
        assert_eq!(render("Hi {{ First_Name }}", &[]), Err(missing.clone()));
        assert_eq!(render("Hi {{ First_Name }}", &[("firstname", "")]), Err(missing.clone()));
        assert_eq!(render("Hi {{ First_Name }}", &[("firstname", " \u{a0} ")]), Err(missing.clone()));
        let message = missing.to_string();
        assert_eq!(message, "the text needs a value for {{First_Name}} and the row has none");
    }

    #[test]
    fn mistakes_are_shown_at_their_character() {
        use TemplateError::{
            AfterFilter, Brace, Nameless, NoDefault, NoFilter, OpenQuote, Unclosed, UnknownFilter, Unopened,
        };
        let unknown = |name: &str, at| UnknownFilter { name: name.to_owned(), at };
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
            ("é{{ a | }}", NoFilter { at: 7 }),
            ("{{ a || upper }}", NoFilter { at: 6 }),
            ("{{ a | frist_name }}", unknown("frist_name", 8)),
            ("{{ a | upper | lower(1) }}", unknown("lower", 16)),
            ("{{ a | 2nd }}", unknown("2nd", 8)),
            ("{{ a | ? }}", unknown("?", 8)),
            ("{{ a | default }}", NoDefault { at: 8 }),
            ("{{ a | default(you) }}", NoDefault { at: 8 }),
            ("{{ a | default(“you”) }}", NoDefault { at: 8 }),
            ("{{ a | default(\"you\" }}", NoDefault { at: 8 }),
            ("{{ a | default(\"you) }}", OpenQuote { at: 16 }),
            ("{{ a | upper(\"x\") }}", AfterFilter { found: '(', at: 13 }),
            ("{{ a | upper first_name }}", AfterFilter { found: 'f', at: 14 }),
            ("{{ a | upper { }}", AfterFilter { found: '{', at: 14 }),
            ("{{ a | upper", Unclosed { at: 1 }),
        ];
        for (text, error) in table {
            assert_eq!(Template::parse(text).unwrap_err(), error, "{text:?}");
        }
        assert_eq!(Template::parse("Hi {{name").unwrap_err().to_string(), "the {{ at character 4 has no }} after it");
    }

    #[test]
    fn filters_are_applied_in_order() {
        let name = [("name", "ada lovelace"), ("blank", " ")];
        for (template, text) in [
            ("{{name | first_name}}", "Ada"),
            ("{{name|first_name|upper}}", "ADA"),
            ("{{ name | upper }}", "ADA LOVELACE"),
            ("{{name | default(\"there\")}}", "ada lovelace"),
            ("{{blank | default(\"there\")}}", "there"),
            ("{{blank | first_name | default('there') | upper}}", "THERE"),
            ("{{blank | default(\"ada king\") | first_name}}", "Ada"),
            ("{{blank | default(\"\")}}!", "!"),
            (r#"{{blank | default("say \"}} | {{\" \\ it's")}}"#, r#"say "}} | {{" \ it's"#),
        ] {
            assert_eq!(render(template, &name).as_deref(), Ok(text), "{template}");
        }
        let none = render("{{name | first_name}}", &[("name", "Dr.")]).unwrap_err();
        assert_eq!(none, MissingValue::NoFirstName { column: "name".to_owned() });
        assert_eq!(none.to_string(), "the text needs a first name out of {{name}} and the row's value has none in it");
        let unknown = Template::parse("{{a | lower}}").unwrap_err().to_string();
        assert!(unknown.starts_with("there is no filter \"lower\" (at character 7); "), "{unknown}");
        assert!(unknown.contains("first_name, upper and default"), "{unknown}");
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
        fn a_value_is_inserted_as_it_is(value in "[{}|a-c\"' ]{0,20}.{0,9}", stand_in in "[^\"\\\\]{0,20}") {
            let column = Template::parse("<{{a}}>").unwrap();
            let rendered = column.render(|_| Some(&value));
            if value.trim().is_empty() {
                prop_assert!(rendered.is_err());
            } else {
                prop_assert_eq!(rendered.unwrap(), format!("<{value}>"));
            }
            let default = Template::parse(&format!("<{{{{a | default(\"{stand_in}\")}}}}>")).unwrap();
            prop_assert_eq!(default.render(|_| None).unwrap(), format!("<{stand_in}>"));
        }

        #[test]
        fn rendering_never_panics(
            filters in prop::collection::vec(prop::sample::select(vec!["upper", "first_name", "default(\"x, y\")"]), 0..5),
            value in ".{0,30}",
        ) {
            let template: String = ["{{a".to_owned()].into_iter().chain(filters.iter().map(|f| format!(" | {f}"))).collect();
            let rendered = Template::parse(&(template + "}}")).unwrap().render(|_| Some(&value));
            if filters.is_empty() && !value.trim().is_empty() {
                prop_assert_eq!(rendered.unwrap(), value);
            }
        }

        #[test]
        fn any_text_parses_or_is_refused_at_a_character_of_it(text in "[{}|a é\"]{0,20}|.{0,20}|\\{\\{a\\|[adefultx\"()|}]{0,15}") {
            use TemplateError::{
                AfterFilter, Brace, Nameless, NoDefault, NoFilter, OpenQuote, Unclosed, UnknownFilter, Unopened,
            };
            match Template::parse(&text) {
                Ok(template) => _ = template.render(|_| Some("x")),
                Err(
                    Unclosed { at } | Unopened { at } | Nameless { at } | Brace { at, .. } | NoFilter { at }
                    | UnknownFilter { at, .. } | NoDefault { at } | AfterFilter { at, .. } | OpenQuote { at },
                ) => prop_assert!((1..=text.chars().count()).contains(&at), "{at} of {text:?}"),
            }
        }
    }
}
