//! Templates through the binary: what is shown before anything is sent, and what is refused where.

use crate::harness::Place;

const PEOPLE: &str = "phone,full name\n07400000001,\"Lovelace, Ada\"\n07400000002,\n07400000003,{{phone}}\n";

#[test]
fn a_text_is_shown_as_each_person_would_get_it() {
    let place = Place::new();
    let path = place.file("people.csv", PEOPLE);
    let file = path.to_str().expect("a plain name");
    let flags = ["--sender", "ACME", "--text", r#"Hi {{Full_Name | first_name | default("you") | upper}}"#];
    let shown = place.crier().expect(0, [&["check", file, "--sample", "3"], &flags[..]].concat());
    for line in ["row 2 reads: Hi ADA", "row 3 reads: Hi YOU", "row 4 reads: Hi {{PHONE}}"] {
        assert!(shown.contains(line), "no {line:?} in {shown}");
    }
    let without = ["check", file, "--sender", "ACME", "--text", "Hi {{full name}}", "--sample", "3"];
    let shown = place.crier().expect(3, without);
    assert!(shown.contains("row 3: the text needs a value for {{full name}} and the row has none"), "{shown}");
    assert!(shown.contains("row 4 reads: Hi {{phone}}"), "{shown}");
}

#[test]
fn a_mistake_in_a_template_refuses_the_file_at_its_character() {
    let place = Place::new();
    let path = place.file("people.csv", PEOPLE);
    let file = path.to_str().expect("a plain name");
    for (text, words) in [
        ("Hi {{full name | frist_name}}", "there is no filter \"frist_name\" (at character 18)"),
        ("Hi {{full name | default(you)}}", "the filter at character 18 needs its text in straight quotes"),
        ("Hi {{full name", "the {{ at character 4 has no }} after it"),
        ("Hi {{nmae | default(\"you\")}}", "the text needs {{nmae}}, and the file has no such column"),
    ] {
        let ended = place.crier().run(["check", file, "--sender", "ACME", "--text", text]);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "no {words:?} in {}", ended.stderr);
    }
    let long = "x".repeat(161);
    let one = ["check", file, "--sender", "ACME", "--text", &long, "--max-segments", "1"];
    let shown = place.crier().expect(3, one);
    assert!(shown.contains("the text has 2 segments, and 1 are allowed"), "{shown}");
}
