use super::*;
use MsisdnError as E;
use proptest::prelude::*;

fn gb(input: &str) -> Result<(String, bool), MsisdnError> {
    Msisdn::parse(input, Region::GB).map(|parsed| (parsed.msisdn.to_string(), parsed.repaired))
}

fn read(input: &str, region: &str) -> Result<String, MsisdnError> {
    Msisdn::parse(input, Region::parse(region).unwrap()).map(|parsed| parsed.msisdn.to_string())
}

#[test]
fn every_spelling_of_a_number_is_the_same_number() {
    let spellings = [
        "07700 900123",
        "07700900123",
        "447700900123",
        "+447700900123",
        "00447700900123",
        "+44 7700 900123",
        "+44 (0)7700 900123",
        "(+44) 7700-900-123",
        "07700.900.123",
        "(07700) 900123",
        " \t07700 900123\u{a0}",
        "'07700900123",
        "\u{2019}07700900123",
        "=\"07700900123\"",
        "\u{feff}07700\u{200b}900\u{2060}123",
        "\u{202a}+447700900123\u{202c}",
        "07700\u{2009}900\u{202f}123",
        "０７７００９００１２３",
        "＋４４７７００９００１２３",
        "٠٧٧٠٠٩٠٠١٢٣",
        "07700–900–123",
    ];
    for spelling in spellings {
        assert_eq!(gb(spelling), Ok(("447700900123".to_owned(), false)), "{spelling:?}");
    }
}

#[test]
fn what_a_spreadsheet_did_without_loss_is_undone_and_said() {
    for input in ["7700900123", "7700 900123", "7700900123.0", "07700900123.0", "447700900123.0"] {
        assert_eq!(gb(input), Ok(("447700900123".to_owned(), true)), "{input:?}");
    }
    // Not every country has a zero to lose.
    let in_us = Msisdn::parse("2125550123", Region::parse("US").unwrap()).unwrap();
    assert_eq!((in_us.msisdn.as_u64(), in_us.repaired), (12_125_550_123, false));
}

#[test]
fn what_is_no_number_is_refused_with_its_own_reason() {
    let table = [
        ("", E::Empty),
        (" \u{a0}\u{200b} ", E::Empty),
        ("'", E::Empty),
        ("4.47701E+11", E::SpreadsheetNumber),
        ("4,47701E+11", E::SpreadsheetNumber),
        ("4.4770090012e11", E::SpreadsheetNumber),
        ("4E11", E::SpreadsheetNumber),
        ("-", E::Character('-')),
        ("+", E::NoDigits),
        ("()", E::NoDigits),
        ("n/a", E::Letters),
        ("O7700 900123", E::Letters),
        ("0800 FLOWERS", E::Letters),
        ("07700 900123 ext 5", E::Extension),
        ("07700 900123 ext. 5", E::Extension),
        ("07700900123x5", E::Extension),
        ("07700900123 #5", E::Extension),
        ("07700900123;ext=5", E::Extension),
        ("07700 900123 / 07700 900124", E::Several),
        ("07700 900123/07700 900124", E::Several),
        ("07700900123;07700900124", E::Several),
        ("07700900123, 07700900124", E::Several),
        ("07700900123 or 07700900124", E::Several),
        ("07700900123\n07700900124", E::Several),
        ("+447700900123 +447700900124", E::Several),
        ("+447700900123+", E::Character('+')),
        ("-447700900123", E::Character('-')),
        ("07700*900123", E::Character('*')),
        ("07700;900123", E::Character(';')),
        ("1", E::TooShort { digits: 1 }),
        ("900123", E::TooShort { digits: 6 }),
        ("+44", E::TooShort { digits: 2 }),
        ("07700 9001", E::NotInPlan { region: Region::GB }),
        ("07700 9001234", E::TooLong { digits: 12 }),
        ("447700172124234235252524", E::TooLong { digits: 24 }),
        ("07700 900123 07700 900124", E::TooLong { digits: 22 }),
        ("+999 1234567", E::CountryCode),
        ("06000 900123", E::NotInPlan { region: Region::GB }),
        ("+44 6000 900123", E::NotInForeignPlan),
    ];
    for (input, reason) in table {
        assert_eq!(gb(input), Err(reason), "{input:?}");
    }
}

#[test]
fn a_number_of_another_country_needs_its_code() {
    assert_eq!(gb("+33 6 12 34 56 78"), Ok(("33612345678".to_owned(), false)));
    assert_eq!(gb("0033 6 12 34 56 78"), Ok(("33612345678".to_owned(), false)));
    // A British number with a digit too many is a valid number of Kazakhstan: it is never tried as one.
    assert!(Msisdn::parse("+7 7009001234", Region::GB).is_ok());
    assert_eq!(gb("77009001234"), Err(E::TooLong { digits: 11 }));
}

#[test]
fn every_country_reads_its_own() {
    let table = [
        ("IT", "06 698 12345", "390669812345"),
        ("IT", "347 123 4567", "393471234567"),
        ("US", "(212) 555-0123", "12125550123"),
        ("US", "011 44 7700 900123", "447700900123"),
        ("FR", "06 12 34 56 78", "33612345678"),
        ("AU", "0412 345 678", "61412345678"),
        ("AU", "0011 44 7700 900123", "447700900123"),
        ("DE", "0151/23456789", "4915123456789"),
    ];
    for (region, input, expected) in table {
        assert_eq!(read(input, region).as_deref(), Ok(expected), "{region} {input}");
    }
}

#[test]
fn the_numbers_that_ofcom_keeps_for_drama_pass_and_the_next_do_not() {
    for last in 0..1_000 {
        assert_eq!(gb(&format!("07700 900{last:03}")), Ok((format!("447700900{last:03}"), false)));
    }
    assert_eq!(gb("07700 901000"), Err(E::NotInPlan { region: Region::GB }));
    assert!(gb("+7 7700900123").is_err());
}

#[test]
fn regions_are_countries_by_two_letters() {
    assert_eq!(Region::parse(" gb "), Ok(Region::GB));
    assert_eq!(Region::parse("ie").unwrap().to_string(), "IE");
    for code in ["", "G", "GBR", "UK", "ZZ", "001", "44", "é"] {
        assert!(Region::parse(code).is_err(), "{code:?}");
    }
}

#[test]
fn the_region_of_a_number_is_its_country() {
    let region = |digits| Msisdn::from_digits(digits).unwrap().region().map(|region| region.to_string());
    assert_eq!(region(447_700_900_123).as_deref(), Some("GB"));
    assert_eq!(region(447_400_123_456).as_deref(), Some("GB"));
    assert_eq!(region(393_471_234_567).as_deref(), Some("IT"));
    assert_eq!(region(12_125_550_123).as_deref(), Some("US"));
    assert_eq!(region(999_999_999_999), None);
}

#[test]
fn seven_to_fifteen_digits_read_back() {
    assert!(Msisdn::from_digits(999_999).is_none());
    assert!(Msisdn::from_digits(1_000_000).is_some());
    assert!(Msisdn::from_digits(999_999_999_999_999).is_some());
    assert!(Msisdn::from_digits(1_000_000_000_000_000).is_none());
}

#[test]
fn a_mask_shows_the_country_and_three_digits() {
    let masked = |digits| Msisdn::from_digits(digits).unwrap().masked().to_string();
    assert_eq!(masked(447_700_900_678), "+44…678");
    assert_eq!(masked(12_125_550_123), "+1…123");
    assert_eq!(masked(353_861_234_567), "+353…567");
    assert_eq!(masked(2_981_234), "+298…");
    assert_eq!(format!("{:?}", Msisdn::from_digits(447_700_900_678).unwrap()), "+44…678");
}

#[test]
fn country_codes_are_as_long_as_the_numbering_plans_say() {
    for code in PHONE_NUMBER_UTIL.get_supported_calling_codes() {
        let code = code.to_string();
        assert_eq!(calling_code_len(&format!("{code}55501234")), code.len(), "+{code}");
    }
}

/// Everything that a number is written with, and what breaks it.
fn cells() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{0,20}",
        "[+0-9 ().x/-]{0,24}",
        "(\\+44|0044|0|)7[0-9]{9}",
        "(\\+|00)[1-9][0-9]{6,14}",
        any::<String>(),
    ]
}

#[test]
fn british_mobile_numbers_are_read_alike_both_ways() {
    // Each prefix is asked for with one number and read with others.
    for prefix in 0..10_000 {
        for (n, (written, region)) in
            [("0", "GB"), ("44", "GB"), ("+44", "FR"), ("", "GB"), ("+44", "GB")].into_iter().enumerate()
        {
            let cell = format!("{written}7{prefix:04}{:05}", (prefix * 7919 + n * 24_989) % 100_000);
            let region = Region::parse(region).unwrap();
            assert_eq!(Msisdn::parse(&cell, region), Msisdn::parse_by_plan(&cell, region), "{cell}");
        }
    }
}

#[test]
fn a_number_of_san_marino_may_be_written_without_its_area() {
    let number = |cell| Msisdn::parse(cell, Region::GB).map(|parsed| parsed.msisdn.to_string());
    assert_eq!(number("+378 886377"), Ok("3780549886377".to_owned()));
    assert_eq!(number("+378 0549 886377"), number("+378 886377"));
}

proptest! {
    #[test]
    fn parsing_what_was_printed_changes_nothing(cell in cells()) {
        if let Ok(parsed) = Msisdn::parse(&cell, Region::GB) {
            let again = Msisdn::parse(&format!("+{}", parsed.msisdn), Region::parse("FR").unwrap()).unwrap();
            prop_assert_eq!(again, Parsed { msisdn: parsed.msisdn, repaired: false });
            prop_assert_eq!(Msisdn::from_digits(parsed.msisdn.as_u64()), Some(parsed.msisdn));
        }
    }

    #[test]
    fn neither_a_reason_nor_debug_shows_the_number(cell in "(0|\\+44|)[0-9]{9,14}[x ]?[0-9]{0,9}") {
        let shown = match Msisdn::parse(&cell, Region::GB) {
            Ok(parsed) => format!("{parsed:?}"),
            Err(reason) => format!("{reason} {reason:?}"),
        };
        let digits = shown.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
        prop_assert!(digits < Some(4), "{}", shown);
    }

    #[test]
    fn the_short_way_to_validity_agrees_with_the_long_one(
        code in prop::sample::select(PHONE_NUMBER_UTIL.get_supported_calling_codes().collect::<Vec<_>>()),
        national in "[1-9][0-9]{4,11}",
    ) {
        if let Ok(number) = PHONE_NUMBER_UTIL.parse(format!("+{code}{national}"), None) {
            prop_assert_eq!(is_valid(&number), PHONE_NUMBER_UTIL.is_valid_number(&number));
        }
    }

    #[test]
    fn spelling_never_changes_who_is_texted(
        digits in prop_oneof!["07[0-9]{9}", "\\+447[0-9]{9}", "7[0-9]{9}", "447[0-9]{9}", "[0-9]{5,14}"],
        gaps in prop::collection::vec(prop_oneof![Just(""), Just(" "), Just("-"), Just("\u{a0}"), Just("\u{200b}")], 16),
    ) {
        let spelled: String = digits.chars().zip(&gaps).flat_map(|(c, gap)| [c.to_string(), (*gap).to_owned()]).collect();
        prop_assert_eq!(Msisdn::parse(&spelled, Region::GB), Msisdn::parse(&digits, Region::GB));
    }

    #[test]
    fn a_number_holds_the_digits_that_were_written(cell in cells()) {
        if let Ok(parsed) = Msisdn::parse(&cell, Region::GB) {
            // A number is the written digits with only prefixes exchanged, the longest 00, three of a country and 0: never one
            // changed or dropped. San Marino's may be written without their area, 0549, which its plan then says.
            let cell = unwrapped(&cell).into_owned();
            let cell = if parsed.repaired { cell.strip_suffix(".0").unwrap_or(&cell) } else { &cell };
            let written: String = cell.chars().filter(char::is_ascii_digit).collect();
            let number = parsed.msisdn.to_string();
            let same = written.bytes().rev().zip(number.bytes().rev()).take_while(|(a, b)| a == b).count();
            let prefix = if number.starts_with("3780549") { 7 } else { 3 };
            prop_assert!(number.len() - same <= prefix && written.len() - same <= 6, "{} {}", written, number);
        }
    }
}
