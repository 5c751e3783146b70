//! The rows of a chunk that wait to be sent, and what keeps some of them from it.

use super::LIVE;
use crate::{
    db::Dialect,
    packs::{AlikePack, AlikeRow, Stored},
    time::ms,
};
use campaign::{
    ChunkId, Msisdn, RowId, SenderId, TextId,
    batch::Sendable,
    quiet::{Hours, Window},
    rate::Rate,
};
use jiff::{SignedDuration, Timestamp};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

/// How long a row waits behind another open text to the same recipient before it is looked at again.
pub(super) const BEHIND_ANOTHER: SignedDuration = SignedDuration::from_secs(5);

/// The reason of a row that waits until a person decides about another one.
pub(crate) const BEHIND_HELD: &str = "waits behind a held row to the same number from the same sender";

/// The reason of a row that waits until another one is told apart from it.
pub(super) const BEHIND_EARLIER: &str = "waits for an earlier text to the same number from the same sender";

/// The rows of a chunk that wait to be sent, each as a [`Candidate`].
///
/// What a row may wait behind and who has opted out are scalar subqueries of at most one row: an EXISTS may be hashed by Postgres,
/// which then reads the whole table for one chunk.
pub(super) fn candidates(dialect: Dialect) -> String {
    let columns = format!(
        "id, destination, sender, text_id, valid_until,
            CASE WHEN (not_before IS NULL OR not_before <= $3) AND (scheduled_for IS NULL OR scheduled_for <= $3) THEN 1 ELSE 0 END,
            (SELECT 1 FROM suppressions s WHERE s.destination = messages.destination AND s.sender IN ('', messages.sender) LIMIT 1),
            (SELECT o.state FROM messages o WHERE o.sender = messages.sender AND o.destination = messages.destination AND {LIVE})"
    );
    dialect.packed(&columns, "messages WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled')")
}

/// A row that waits to be sent, and what keeps it from that.
#[derive(serde::Deserialize)]
pub(super) struct Candidate {
    pub(super) id: i64,
    pub(super) destination: i64,
    pub(super) sender: String,
    pub(super) text_id: i64,
    pub(super) valid_until: Option<i64>,
    /// 1: it is time.
    pub(super) due: i64,
    pub(super) opted_out: Option<i64>,
    /// The state of the live row to the same number from the same sender.
    pub(super) behind: Option<String>,
}

/// Rows of a chunk that are not sent now, and why.
#[derive(Default)]
pub(super) struct Aside {
    pub(super) expired: Vec<i64>,
    pub(super) opted_out: Vec<i64>,
    /// Those that wait, by until when, in milliseconds, and why.
    pub(super) wait: BTreeMap<(i64, Cow<'static, str>), Vec<i64>>,
}

impl Aside {
    /// Takes out of the rows whatever is not to be sent now for its own sake.
    pub(super) fn of(candidates: &mut Vec<Candidate>, now: Timestamp) -> Self {
        let mut aside = Self::default();
        candidates.retain(|row| {
            let behind = row.behind.as_deref();
            #[cfg(feature = "simulated")]
            let behind = behind.filter(|_| !campaign::mutant::Mutant::NoLiveKeyLock.is_on());
            if row.valid_until.is_some_and(|until| until <= ms(now)) {
                aside.expired.push(row.id);
            } else if row.opted_out.is_some() {
                aside.opted_out.push(row.id);
            } else if let (1, Some(state)) = (row.due, behind) {
                let why = if state == "held" { BEHIND_HELD } else { BEHIND_EARLIER };
                aside.waits(ms(now + BEHIND_ANOTHER), why, row.id);
            } else {
                return row.due == 1;
            }
            false
        });
        aside
    }

    pub(super) fn waits(&mut self, until: i64, why: impl Into<Cow<'static, str>>, row: i64) {
        self.wait.entry((until, why.into())).or_default().push(row);
    }
}

/// The chunk `$1` as a [`Found`].
pub(super) const FOUND: &str =
    "SELECT k.campaign_id AS campaign, k.state AS chunk_state, c.state AS campaign_state, k.batch_len_max, c.quiet, c.weekdays, c.zone,
            c.rate_us, (SELECT count(*) FROM quarantine WHERE since IS NOT NULL) AS quarantined,
            (SELECT opt_outs FROM quarantine) AS opt_outs,
            (SELECT count(*) FROM sender_rates r WHERE p.sender IS NULL OR r.sender = p.sender) AS any_rate,
            p.sender, p.text_id, t.body, p.packed_at, p.rows
     FROM chunks k JOIN campaigns c ON c.id = k.campaign_id
     LEFT JOIN packs p ON p.chunk_id = k.id LEFT JOIN texts t ON t.id = p.text_id WHERE k.id = $1";

/// The chunk that a claim is about, and what its campaign says.
#[derive(sqlx::FromRow)]
pub(super) struct Found {
    #[sqlx(flatten)]
    pub(super) pack: Stored,
    pub(super) campaign: i64,
    pub(super) chunk_state: String,
    pub(super) campaign_state: String,
    pub(super) batch_len_max: Option<i64>,
    pub(super) quiet: Option<String>,
    pub(super) weekdays: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) rate_us: Option<i64>,
    pub(super) quarantined: i64,
    pub(super) opt_outs: i64,
    /// Not 0: its sender has a rate; where it has several, any has.
    pub(super) any_rate: i64,
}

impl Found {
    /// Takes the rows out whose people may not be texted now. Answers when the hours end of those that may, in milliseconds.
    pub(super) fn by_hours(
        &self,
        candidates: &mut Vec<Candidate>,
        aside: &mut Aside,
        now: Timestamp,
    ) -> HashMap<i64, i64> {
        let mut open = HashMap::new();
        let zone = self.zone.as_deref().unwrap_or("Europe/London");
        // What can't be read was never written: hours are checked before a campaign is loaded.
        let Ok(Some(hours)) = Hours::parse(self.quiet.as_deref(), self.weekdays.as_deref(), zone) else { return open };
        let mut windows = HashMap::new();
        candidates.retain(|row| {
            let country = Msisdn::from_digits(row.destination.cast_unsigned()).and_then(Msisdn::region);
            match windows.entry(country).or_insert_with(|| hours.window(country, now)) {
                Window::Open { until } => {
                    open.insert(row.id, ms(*until));
                    true
                }
                Window::Closed { until } => {
                    aside.waits(ms(*until), format!("waits for its hours, until {until}"), row.id);
                    false
                }
            }
        });
        open
    }
}

/// Takes the rows out for which their sender's rate has no room now: for each such sender its rate, the moment up to which
/// its texts are spread once the others are taken, and the ids of the rows.
pub(super) fn without_room(
    candidates: &mut Vec<Candidate>,
    rates: &BTreeMap<String, (Rate, i64)>,
    now: Timestamp,
) -> Vec<(Rate, i64, Vec<i64>)> {
    let mut without = Vec::new();
    for (sender, (rate, spread_to)) in rates {
        let (mut room, after) = rate.allowed(*spread_to, now.as_microsecond());
        let (allowed, mut waiting) = (room, Vec::new());
        candidates.retain(|row| {
            if row.sender != *sender {
                return true;
            }
            room -= 1;
            if room < 0 {
                waiting.push(row.id);
            }
            room >= 0
        });
        if !waiting.is_empty() {
            without.push((*rate, after(allowed), waiting));
        }
    }
    without
}

/// The rows of a pack, as if nothing in the ledger kept any of them.
pub(super) fn of_pack(chunk: ChunkId, pack: &AlikePack) -> Vec<Candidate> {
    let row = |row: &AlikeRow| Candidate {
        id: row.id(chunk).0,
        destination: row.destination(),
        sender: pack.sender.clone(),
        text_id: pack.text_id,
        valid_until: None,
        due: 1,
        opted_out: None,
        behind: None,
    };
    pack.rows.iter().map(row).collect()
}

pub(super) fn sendable(rows: Vec<Candidate>) -> impl Iterator<Item = Sendable> {
    rows.into_iter().filter_map(|row| {
        Some(Sendable {
            row: RowId(row.id),
            destination: Msisdn::from_digits(row.destination.cast_unsigned())?,
            sender: SenderId::parse(&row.sender).ok()?,
            text: TextId(row.text_id),
        })
    })
}
