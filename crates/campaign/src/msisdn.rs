//! Phone numbers.
//!
//! A cell of a spreadsheet becomes a number here or nowhere. What a spreadsheet does to a number without loss (a lost
//! leading zero, odd spaces, a quote in front) is undone; what it does with loss is refused. A number is never guessed:
//! one that is not in its country's numbering plan is refused, because it may be somebody else's with a typo in it.

use rlibphonenumber::{
    NumberLengthType, PHONE_NUMBER_UTIL, ParseError, PhoneNumber, PhoneNumberFormat, ValidationError,
};
use std::{borrow::Cow, fmt, num::NonZeroU64, ops::RangeInclusive, str::FromStr};

mod british;

/// A country by its ISO 3166-1 alpha-2 code: how a number without a country code is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Region([u8; 2]);

/// A code that is no country with a numbering plan.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no country; two letters name one, as GB does")]
pub struct UnknownRegion(String);

impl Region {
    /// The United Kingdom, the default.
    pub const GB: Self = Self(*b"GB");

    /// Takes a code in any case.
    pub fn parse(code: &str) -> Result<Self, UnknownRegion> {
        let upper = code.trim().to_ascii_uppercase();
        let known =
            <[u8; 2]>::try_from(upper.as_bytes()).ok().map(Self).filter(|region| region.calling_code().is_some());
        known.ok_or_else(|| UnknownRegion(code.to_owned()))
    }

    fn plan(self) -> Option<rlibphonenumber::Region> {
        std::str::from_utf8(&self.0).ok()?.parse().ok()
    }

    fn calling_code(self) -> Option<i32> {
        PHONE_NUMBER_UTIL.get_country_code_for_region(self.plan()?)
    }
}

impl FromStr for Region {
    type Err = UnknownRegion;

    fn from_str(code: &str) -> Result<Self, Self::Err> {
        Self::parse(code)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A phone number as the gateway takes it: E.164 digits without `+`. [`Msisdn::parse`] is the only way from what a
/// person wrote to one.
///
/// `Display` is the whole number, for the wire and for reports; `Debug` is masked, for logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Msisdn(NonZeroU64);

/// A number, and whether it had to be put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The number.
    pub msisdn: Msisdn,
    /// A spreadsheet had taken its leading zero or added a `.0`.
    pub repaired: bool,
}

/// Why a cell is no number, in the words that the person gets. None of them shows the number.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum MsisdnError {
    /// Nothing there.
    #[error("the number is missing")]
    Empty,
    /// `4.47701E+11`.
    #[error("the spreadsheet destroyed the digits; format the column as text")]
    SpreadsheetNumber,
    /// No digit in it.
    #[error("there is no digit in it")]
    NoDigits,
    /// `1-800-FLOWERS`, `n/a`.
    #[error("a number has no letters in it")]
    Letters,
    /// `*`, a `+` in the middle.
    #[error("{0:?} does not belong there in a number")]
    Character(char),
    /// `020 7946 0000 ext 5`.
    #[error("a text can't be sent to an extension")]
    Extension,
    /// `07700 900123 / 07700 900124`.
    #[error("there is more than one number in it; give each its own row")]
    Several,
    /// Fewer digits than any number of its country has.
    #[error("the number is too short: {digits} digits")]
    TooShort {
        /// As written.
        digits: usize,
    },
    /// More digits than any number of its country has.
    #[error("the number is too long: {digits} digits")]
    TooLong {
        /// As written.
        digits: usize,
    },
    /// `+` and a code that no country has.
    #[error("no country has this country code")]
    CountryCode,
    /// The right length, but in no range that is in use.
    #[error("not a valid number of {region}; a number of another country starts with + and its country code")]
    NotInPlan {
        /// The country as which a number without a country code was read.
        region: Region,
    },
    /// The right length, but in no range that is in use by the country whose code it has.
    #[error("not a valid number of the country whose code it starts with")]
    NotInForeignPlan,
}

impl MsisdnError {
    /// A stable name of the reason, for reports and filters.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "number_missing",
            Self::SpreadsheetNumber => "number_scientific",
            Self::NoDigits => "number_no_digits",
            Self::Letters => "number_letters",
            Self::Character(_) => "number_character",
            Self::Extension => "number_extension",
            Self::Several => "number_several",
            Self::TooShort { .. } => "number_too_short",
            Self::TooLong { .. } => "number_too_long",
            Self::CountryCode => "number_country_code",
            Self::NotInPlan { .. } | Self::NotInForeignPlan => "number_not_valid",
        }
    }
}

impl Msisdn {
    /// Reads a number as a person or a spreadsheet wrote it.
    ///
    /// ```
    /// use campaign::{Msisdn, Region};
    /// let parsed = Msisdn::parse("7700 900123", Region::GB)?;
    /// assert_eq!(parsed.msisdn.to_string(), "447700900123");
    /// assert!(parsed.repaired); // the spreadsheet had taken the leading zero
    /// # Ok::<(), campaign::msisdn::MsisdnError>(())
    /// ```
    pub fn parse(input: &str, region: Region) -> Result<Parsed, MsisdnError> {
        // Drama's numbers are in no plan, and each of their prefixes holds others: they go the long way.
        let in_plan = |number: &str| {
            PHONE_NUMBER_UTIL.parse(number, None).is_ok_and(|number| is_valid(&number) && !is_for_drama(&number))
        };
        match british::read(input, region, in_plan) {
            Some(parsed) => Ok(parsed),
            None => Self::parse_by_plan(input, region),
        }
    }

    fn parse_by_plan(input: &str, region: Region) -> Result<Parsed, MsisdnError> {
        let cell = unwrapped(input);
        let cell = cell.as_ref();
        if is_scientific(cell) {
            return Err(MsisdnError::SpreadsheetNumber);
        }
        let (cell, was_float) = match cell.strip_suffix(".0") {
            Some(digits) if digits.len() >= 7 && digits.bytes().all(|b| b.is_ascii_digit()) => (digits, true),
            _ => (cell, false),
        };
        let dialled = Dialled::read(cell)?;
        let (number, home) = dialled.resolve(region)?;
        let msisdn = Self::of(&number).ok_or(MsisdnError::TooLong { digits: dialled.len() })?;
        let lost_zero = home && !dialled.digits().starts_with('0') && !msisdn.is_written_as(dialled.digits());
        Ok(Parsed { msisdn, repaired: was_float || (lost_zero && is_written_with_zero(&number)) })
    }

    /// Takes digits that were a number before: of the ledger, of the gateway. 7 to 15 of them.
    pub fn from_digits(digits: u64) -> Option<Self> {
        NonZeroU64::new(digits).filter(|_| (1_000_000..=999_999_999_999_999).contains(&digits)).map(Self)
    }

    /// The digits as one integer; no number starts with a zero.
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }

    /// `+44…678`: enough to tell rows apart, not enough to ring.
    pub fn masked(self) -> impl fmt::Display {
        Masked(self)
    }

    /// The country code of the number: what stands after the `+`.
    pub fn country_code(self) -> String {
        let mut digits = self.0.to_string();
        digits.truncate(calling_code_len(&digits));
        digits
    }

    /// The country of the number; of several that share a code the main one, of a global service none.
    pub fn region(self) -> Option<Region> {
        let number = PHONE_NUMBER_UTIL.parse(format!("+{}", self.0), None).ok()?;
        let exact = PHONE_NUMBER_UTIL.get_region_for_number(&number);
        let region = exact.or_else(|| PHONE_NUMBER_UTIL.get_region_for_country_code(number.country_code))?;
        Region::parse(region.as_region_str().as_str()).ok()
    }

    fn of(number: &PhoneNumber) -> Option<Self> {
        let zeros = if number.italian_leading_zero() { number.number_of_leading_zeros().max(1) } else { 0 };
        let national = number.national_number;
        let len = national.checked_ilog10().unwrap_or(0) + 1 + u32::try_from(zeros).ok()?;
        let code = u64::try_from(number.country_code).ok()?;
        Self::from_digits(code.checked_mul(10_u64.checked_pow(len)?)?.checked_add(national)?)
    }

    fn is_written_as(self, digits: &str) -> bool {
        digits.parse() == Ok(self.0)
    }
}

impl fmt::Display for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Masked(*self), f)
    }
}

struct Masked(Msisdn);

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.0.to_string();
        let code = calling_code_len(&digits);
        // At least four digits stay hidden.
        let tail = digits.len().saturating_sub(code + 4).min(3);
        write!(f, "+{}…{}", &digits[..code], &digits[digits.len() - tail..])
    }
}

/// Country codes are prefix-free (ITU-T E.164, annex): 1 and 7 alone, these of two digits, all others of three.
fn calling_code_len(digits: &str) -> usize {
    match digits.as_bytes() {
        [b'1' | b'7', ..] => 1,
        [b'2', b'0' | b'7', ..]
        | [b'3', b'0'..=b'4' | b'6' | b'9', ..]
        | [b'4', b'0' | b'1' | b'3'..=b'9', ..]
        | [b'5', b'1'..=b'8', ..]
        | [b'6', b'0'..=b'6', ..]
        | [b'8', b'1' | b'2' | b'4' | b'6', ..]
        | [b'9', b'0'..=b'5' | b'8', ..] => 2,
        _ => 3,
    }
}

/// A cell without what spreadsheets and word processors leave around and inside of a number.
fn unwrapped(input: &str) -> Cow<'_, str> {
    let cell = if input.is_ascii() {
        Cow::Borrowed(input.trim())
    } else {
        let plain: String = input.chars().filter(|c| !is_invisible(*c)).map(plain).collect();
        Cow::Owned(plain.trim().to_owned())
    };
    // `'07700…` and `="07700…"` are how people stop a spreadsheet from eating the zero.
    let inner = match cell.strip_prefix("=\"").and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner,
        None => cell.strip_prefix('\'').unwrap_or(&cell),
    };
    if inner.len() == cell.len() { cell } else { Cow::Owned(inner.trim().to_owned()) }
}

/// Zero-width spaces and joiners, direction marks, the byte order mark, the soft hyphen.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The ASCII twin of a character where it has one: digits of other scripts, dashes, odd spaces.
fn plain(c: char) -> char {
    let digit = |zero: u32| char::from_digit(u32::from(c) - zero, 10).unwrap_or(c);
    match c {
        '０'..='９' => digit(0xFF10),
        '٠'..='٩' => digit(0x0660),
        '۰'..='۹' => digit(0x06F0),
        '＋' => '+',
        '（' => '(',
        '）' => ')',
        '．' => '.',
        '／' => '/',
        '‐'..='―' | '−' | '－' => '-',
        '\u{2018}' | '\u{2019}' => '\'',
        c if c.is_whitespace() && c != '\n' => ' ',
        c => c,
    }
}

/// `4.47701E+11`, `4,47701E+11`, `4E11`: a spreadsheet's display of a large number.
fn is_scientific(cell: &str) -> bool {
    let Some((mantissa, exponent)) = cell.split_once(['e', 'E']) else { return false };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once(['.', ',']).unwrap_or((mantissa, "0"));
    digits(whole) && digits(fraction) && digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))
}

/// The digits of a cell, and whether they say their country.
struct Dialled {
    /// `+` and digits, or digits.
    number: String,
}

/// Digits of the shortest number that a second number of a cell would have.
const DIGITS_MIN: usize = 7;

impl Dialled {
    fn read(cell: &str) -> Result<Self, MsisdnError> {
        if cell.is_empty() {
            return Err(MsisdnError::Empty);
        }
        let mut number = String::with_capacity(cell.len());
        for c in cell.chars() {
            match c {
                '0'..='9' => number.push(c),
                '+' if number.is_empty() => number.push(c),
                ' ' | '(' | ')' | '.' | '/' => {}
                // A dash in front is a minus or a formula.
                '-' if !number.is_empty() => {}
                _ => return Err(objection(cell, c)),
            }
        }
        let dialled = Self { number };
        match dialled.len() {
            0 => Err(MsisdnError::NoDigits),
            _ if holds_several(cell) => Err(MsisdnError::Several),
            _ => Ok(dialled),
        }
    }

    fn digits(&self) -> &str {
        self.number.strip_prefix('+').unwrap_or(&self.number)
    }

    fn len(&self) -> usize {
        self.digits().len()
    }

    /// The number, and whether it was read as one of `region` for want of a country code.
    fn resolve(&self, region: Region) -> Result<(PhoneNumber, bool), MsisdnError> {
        if self.number.starts_with('+') {
            return self.in_plan(&self.number, None, region).map(|number| (number, false));
        }
        // 00 is the prefix that most of the world dials; numbering plans know the others.
        if let Some(international) = self.number.strip_prefix("00")
            && let Ok(number) = self.in_plan(&format!("+{international}"), None, region)
        {
            return Ok((number, false));
        }
        let number = self.in_plan(&self.number, region.plan(), region)?;
        let home = region.calling_code() == Some(number.country_code);
        Ok((number, home))
    }

    fn in_plan(
        &self,
        number: &str,
        plan: Option<rlibphonenumber::Region>,
        region: Region,
    ) -> Result<PhoneNumber, MsisdnError> {
        let (short, long) = (MsisdnError::TooShort { digits: self.len() }, MsisdnError::TooLong { digits: self.len() });
        let parsed = PHONE_NUMBER_UTIL.parse(number, plan).map_err(|e| match e {
            ParseError::TooShortAfterIdd | ParseError::TooShortNsn => short.clone(),
            ParseError::TooLongNsn => long.clone(),
            ParseError::InvalidCountryCode => MsisdnError::CountryCode,
            // Two digits or fewer are no number to the parser; more than 17 overflow it.
            ParseError::NotANumber(_) if self.len() < DIGITS_MIN => short.clone(),
            ParseError::NotANumber(_) => long.clone(),
        })?;
        if is_valid(&parsed) || is_for_drama(&parsed) {
            return Ok(parsed);
        }
        Err(match PHONE_NUMBER_UTIL.is_possible_number_with_reason(&parsed) {
            // Some plans have gaps between their lengths: what falls into one lacks digits, as far as a person can see.
            Err(ValidationError::TooShort | ValidationError::InvalidLength)
            | Ok(NumberLengthType::IsPossibleLocalOnly) => short,
            Err(ValidationError::TooLong) => long,
            Err(ValidationError::InvalidCountryCode) => MsisdnError::CountryCode,
            Ok(NumberLengthType::IsPossible) => {
                if plan.is_some() && region.calling_code() == Some(parsed.country_code) {
                    MsisdnError::NotInPlan { region }
                } else {
                    MsisdnError::NotInForeignPlan
                }
            }
        })
    }
}

/// What is wrong with a cell in which `c` is the first character that no number has.
fn objection(cell: &str, c: char) -> MsisdnError {
    if holds_extension(cell) {
        return MsisdnError::Extension;
    }
    if holds_several(cell) {
        return MsisdnError::Several;
    }
    if cell.chars().any(char::is_alphabetic) {
        return MsisdnError::Letters;
    }
    MsisdnError::Character(c)
}

/// Two runs that could each be a number, with something between them that no number has inside.
fn holds_several(cell: &str) -> bool {
    let inside = |c: char| c.is_ascii_digit() || matches!(c, ' ' | '(' | ')' | '.' | '-');
    let digits = |run: &str| run.bytes().filter(u8::is_ascii_digit).count();
    cell.split(|c: char| !inside(c)).filter(|run| digits(run) >= DIGITS_MIN).nth(1).is_some()
}

/// `… ext 5`, `… x5`, `… #5`.
fn holds_extension(cell: &str) -> bool {
    let Some(start) = cell.find(|c: char| c.is_alphabetic() || c == '#') else { return false };
    let (number, rest) = cell.split_at(start);
    let marker = rest.find(|c: char| !c.is_alphabetic() && c != '#').unwrap_or(rest.len());
    let (marker, extension) = rest.split_at(marker);
    let known = ["x", "ext", "extn", "extension", "#"].iter().any(|known| marker.eq_ignore_ascii_case(known));
    let is_digit = |c: char| c.is_ascii_digit();
    known && number.contains(is_digit) && extension.contains(is_digit)
}

/// At home the number starts with a zero: the one that a spreadsheet removes.
fn is_written_with_zero(number: &PhoneNumber) -> bool {
    let written = PHONE_NUMBER_UTIL.format(number, PhoneNumberFormat::National);
    written.chars().find(char::is_ascii_digit) == Some('0')
}

/// [`PhoneNumberUtil::is_valid_number`](rlibphonenumber::PhoneNumberUtil), asking the main country of the code first:
/// half the work for nearly every number. A test holds that the two agree.
fn is_valid(number: &PhoneNumber) -> bool {
    let main = PHONE_NUMBER_UTIL.get_region_for_country_code(number.country_code);
    main.is_some_and(|main| PHONE_NUMBER_UTIL.is_valid_number_for_region(number, main))
        || PHONE_NUMBER_UTIL.is_valid_number(number)
}

/// Numbers that Ofcom keeps free for drama, and that examples and tests use: nobody has one of them, so that the plan
/// of the numbers in use doesn't know them.
const DRAMA: RangeInclusive<u64> = 7_700_900_000..=7_700_900_999;

fn is_for_drama(number: &PhoneNumber) -> bool {
    number.country_code == 44 && DRAMA.contains(&number.national_number)
}

#[cfg(test)]
mod tests;
