//! Laravel's paginator, with all its fields.

use serde_json::{Value, json};

/// Rows on one page of either list.
pub(crate) const PER_PAGE: usize = 10;

/// Which page of what.
pub(crate) struct Page<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: &'a [(String, String)],
    pub(crate) current: usize,
    pub(crate) total: usize,
}

/// The page that a query asks for: anything but a positive number is page 1, as in Laravel.
pub(crate) fn asked_for(query: &[(String, String)]) -> usize {
    let page = query.iter().rev().find(|(name, _)| name == "page").and_then(|(_, value)| value.parse().ok());
    page.filter(|page| *page > 0).unwrap_or(1)
}

impl Page<'_> {
    /// `data` of a paginated answer.
    pub(crate) fn around(&self, rows: Vec<Value>) -> Value {
        let last = self.total.div_ceil(PER_PAGE).max(1);
        let first_row = (self.current - 1).saturating_mul(PER_PAGE).saturating_add(1);
        let (from, to) = match rows.len() {
            0 => (None, None),
            len => (Some(first_row), Some(first_row + len - 1)),
        };
        let previous = (self.current > 1).then(|| self.url(self.current - 1));
        let next = (self.current < last).then(|| self.url(self.current + 1));
        let mut links = vec![json!({"url": previous, "label": "&laquo; Previous", "active": false})];
        links.extend(numbered(self.current, last).into_iter().map(|page| match page {
            Some(page) => {
                json!({"url": self.url(page), "label": page.to_string(), "active": page == self.current})
            }
            None => json!({"url": null, "label": "...", "active": false}),
        }));
        links.push(json!({"url": next, "label": "Next &raquo;", "active": false}));
        json!({
            "current_page": self.current,
            "data": rows,
            "first_page_url": self.url(1),
            "from": from,
            "last_page": last,
            "last_page_url": self.url(last),
            "links": links,
            "next_page_url": next,
            "path": self.path,
            "per_page": PER_PAGE,
            "prev_page_url": previous,
            "to": to,
            "total": self.total,
        })
    }

    fn url(&self, page: usize) -> String {
        let mut url = format!("{}?", self.path);
        for (name, value) in self.query.iter().filter(|(name, _)| name != "page") {
            url.push_str(&format!("{}={}&", escaped(name), escaped(value)));
        }
        url.push_str(&format!("page={page}"));
        url
    }
}

/// The page numbers that Laravel links to; `None` is the dots between them.
fn numbered(current: usize, last: usize) -> Vec<Option<usize>> {
    let (near_start, near_end) = (current <= 7, current + 7 > last);
    let mut pages: Vec<Option<usize>> = Vec::new();
    let ranges = if last < 14 {
        vec![1..=last]
    } else if near_start {
        vec![1..=10, last - 1..=last]
    } else if near_end {
        vec![1..=2, last - 9..=last]
    } else {
        vec![1..=2, current - 3..=current + 3, last - 1..=last]
    };
    for range in ranges {
        if !pages.is_empty() {
            pages.push(None);
        }
        pages.extend(range.map(Some));
    }
    pages
}

/// RFC 3986 escapes, as PHP's `http_build_query` makes them for Laravel.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_in_the_middle_says_where_it_is() {
        let query =
            [("sender".to_owned(), "ACME".to_owned()), ("sent_since".to_owned(), "2025-05-14 00:00:00".to_owned())];
        let page = Page { path: "http://x/api/sms/list", query: &query, current: 2, total: 25 };
        let data = page.around(vec![Value::Null; 10]);
        assert_eq!((&data["from"], &data["to"], &data["last_page"]), (&json!(11), &json!(20), &json!(3)));
        assert_eq!(
            data["next_page_url"],
            "http://x/api/sms/list?sender=ACME&sent_since=2025-05-14%2000%3A00%3A00&page=3"
        );
        assert_eq!(data["links"].as_array().unwrap().len(), 5);
    }

    #[test]
    fn a_page_past_the_end_is_empty() {
        let page = Page { path: "p", query: &[], current: 9, total: 25 };
        let data = page.around(vec![]);
        assert_eq!((&data["from"], &data["to"], &data["total"]), (&Value::Null, &Value::Null, &json!(25)));
    }

    #[test]
    fn many_pages_are_linked_with_dots() {
        let dots = |current| numbered(current, 50).iter().filter(|page| page.is_none()).count();
        assert_eq!((dots(1), dots(25), dots(50)), (1, 2, 1));
        assert_eq!(numbered(3, 13).len(), 13);
    }

    #[test]
    fn only_a_positive_number_is_a_page() {
        let asked = |value: &str| asked_for(&[("page".to_owned(), value.to_owned())]);
        assert_eq!((asked("3"), asked("0"), asked("-1"), asked("x"), asked_for(&[])), (3, 1, 1, 1, 1));
    }
}
