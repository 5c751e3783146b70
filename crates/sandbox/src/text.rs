//! Segments of a text, for `sms_count`.

const GSM: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
const GSM_ESCAPED: &str = "\u{c}^{}\\[~]|€";

/// Segments that the text needs: 160/153 septets in the default alphabet, 70/67 UTF-16 units otherwise.
pub(crate) fn segments(text: &str) -> u32 {
    let septets = text.chars().try_fold(0_usize, |sum, c| {
        if GSM.contains(c) {
            Some(sum + 1)
        } else if GSM_ESCAPED.contains(c) {
            Some(sum + 2)
        } else {
            None
        }
    });
    let count = match septets {
        Some(n) if n <= 160 => 1,
        Some(n) => n.div_ceil(153),
        None => match text.encode_utf16().count() {
            n if n <= 70 => 1,
            n => n.div_ceil(67),
        },
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::segments;

    #[test]
    fn segments_follow_the_alphabet_of_the_text() {
        assert_eq!(segments(""), 1);
        assert_eq!(segments(&"a".repeat(160)), 1);
        assert_eq!(segments(&"a".repeat(161)), 2);
        assert_eq!(segments(&"€".repeat(80)), 1);
        assert_eq!(segments(&"€".repeat(81)), 2);
        assert_eq!(segments(&"’".repeat(70)), 1);
        assert_eq!(segments(&"’".repeat(71)), 2);
    }
}
