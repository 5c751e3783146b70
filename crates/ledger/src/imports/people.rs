//! Who of a file's people has opted out.

use crate::{
    Ledger, Result,
    db::{read_conn, sql},
    error::During,
};
use campaign::{Msisdn, SenderId};
use std::collections::HashMap;

/// Opt-outs, to be asked about one recipient after another. It has no `Debug`: numbers are personal.
pub struct OptOuts(HashMap<u64, Vec<String>>);

impl OptOuts {
    fn new(found: Vec<(i64, String)>) -> Self {
        let mut by_number: HashMap<u64, Vec<String>> = HashMap::new();
        for (number, sender) in found {
            by_number.entry(number.cast_unsigned()).or_default().push(sender);
        }
        Self(by_number)
    }

    /// Whether this person has opted out of texts from this sender, or from all.
    pub fn include(&self, sender: &SenderId, number: Msisdn) -> bool {
        let senders = self.0.get(&number.as_u64());
        senders.is_some_and(|senders| senders.iter().any(|of| of.is_empty() || of == sender.as_str()))
    }
}

impl Ledger {
    /// All opt-outs, unless there are more than `max`: to know them is quicker than to look each person of a file up.
    pub async fn opt_outs_if_few(&self, max: u32) -> Result<Option<OptOuts>> {
        let operation = "read the opt-outs";
        let found: Vec<(i64, String)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as("SELECT destination, sender FROM suppressions LIMIT $1 + 1")
                .bind(i64::from(max))
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
        });
        Ok((found.len() <= max as usize).then(|| OptOuts::new(found)))
    }

    /// Which of these recipients have opted out of texts from their sender, in the order given.
    pub async fn suppressed_among(&self, recipients: &[(SenderId, Msisdn)]) -> Result<Vec<bool>> {
        let operation = "look for opt-outs";
        let numbers: Vec<u64> = recipients.iter().map(|(_, number)| number.as_u64()).collect();
        let numbers = serde_json::to_string(&numbers).expect("numbers are JSON");
        let found: Vec<(i64, String)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(sql(format!(
                "SELECT destination, sender FROM suppressions WHERE destination {}",
                dialect.ids(1)
            )))
            .bind(numbers)
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        let found = OptOuts::new(found);
        Ok(recipients.iter().map(|(sender, number)| found.include(sender, *number)).collect())
    }
}
