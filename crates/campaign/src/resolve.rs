//! What to do about rows whose text was not found in the gateway's list.
//!
//! An unknown outcome is resolved by looking, never by guessing: the sender of the attempt must be done with it, then two
//! complete readings of the list, each `settle` after what came before it, must agree on which rows are absent.

use crate::RowId;
use jiff::{SignedDuration, Timestamp};

/// What a person chose to do with rows that are proven absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAbsent {
    /// Hold them for a person to decide.
    #[default]
    Hold,
    /// Send them once more, where the list has proven itself.
    ResendOnce,
}

/// What is known about one attempt after a complete reading of its window.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// The gateway said that it took the batch.
    pub accepted: bool,
    /// When the sender of the attempt was known to be done: it reported, or its death was proven.
    pub sender_done_at: Option<Timestamp>,
    /// When the attempt was marked as sending.
    pub sending_at: Timestamp,
    /// When this reading began.
    pub looked_at: Timestamp,
    /// Rows that this reading did not find, sorted.
    pub absent: &'a [RowId],
    /// When the last reading that counted began, and what it did not find, sorted.
    pub before: Option<(Timestamp, &'a [RowId])>,
    /// A text that was accepted later is in the list: the list has caught up past this attempt.
    pub later_text_listed: bool,
    /// Accepted recipients seen in the list are many, and nothing in it is unexplained.
    pub list_is_proven: bool,
    /// More texts are to be sent, or were accepted and are not in the list yet: these two may still become true.
    pub proof_may_come: bool,
}

/// How an absence is resolved.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How long the list may lag behind.
    pub settle: SignedDuration,
    /// What to do with proven absence.
    pub on_absent: OnAbsent,
    /// When to give up waiting for proof that the sender is done, or that the list has caught up.
    pub give_up: SignedDuration,
}

/// What to do with the rows that are absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No row is absent.
    Settled,
    /// Look again at this time; `counts` says whether this reading is one of the two that must agree.
    LookAgain {
        /// Not before.
        at: Timestamp,
        /// Remember this reading for the next.
        counts: bool,
    },
    /// Show them to a person.
    Hold(HoldReason),
    /// Queue them again: those among them that were resent before are held instead.
    Resend,
}

/// Why rows are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// The gateway said that it took them, and never listed them.
    AcceptedNeverListed,
    /// The answer was lost, and they are not in the list.
    LostAndAbsent,
    /// Nobody knows whether the process that sent them is done.
    SenderNotKnownToBeDone,
}

impl HoldReason {
    /// The reason as a person reads it.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::AcceptedNeverListed => "the gateway accepted it but never listed it",
            Self::LostAndAbsent => "the gateway's answer was lost and its list does not show the text",
            Self::SenderNotKnownToBeDone => "the process that sent it can't be proven to be done with it",
        }
    }
}

/// Decides about the absent rows of one attempt.
pub fn decide(evidence: &Evidence<'_>, policy: &Policy) -> Decision {
    let now = evidence.looked_at;
    if evidence.absent.is_empty() {
        return Decision::Settled;
    }
    #[cfg(feature = "simulated")]
    let policy = &Policy {
        settle: if crate::mutant::Mutant::SettleSkipped.is_on() { SignedDuration::ZERO } else { policy.settle },
        ..*policy
    };
    let done_at = evidence.sender_done_at;
    #[cfg(feature = "simulated")]
    let done_at = if crate::mutant::Mutant::SettleFromSend.is_on() { Some(evidence.sending_at) } else { done_at };
    let Some(done_at) = done_at else {
        // A frozen sender may wake after any time and send: absence now proves nothing.
        return if now >= evidence.sending_at + policy.give_up {
            Decision::Hold(HoldReason::SenderNotKnownToBeDone)
        } else {
            Decision::LookAgain { at: now + policy.settle, counts: false }
        };
    };
    if now < done_at + policy.settle {
        return Decision::LookAgain { at: done_at + policy.settle, counts: false };
    }
    match evidence.before {
        Some((before, absent)) if before >= done_at + policy.settle && absent == evidence.absent => {
            if now < before + policy.settle {
                return Decision::LookAgain { at: before + policy.settle, counts: false };
            }
        }
        _ => return Decision::LookAgain { at: now + policy.settle, counts: true },
    }
    if evidence.accepted {
        return Decision::Hold(HoldReason::AcceptedNeverListed);
    }
    match policy.on_absent {
        OnAbsent::ResendOnce if evidence.later_text_listed && evidence.list_is_proven => Decision::Resend,
        OnAbsent::ResendOnce if evidence.proof_may_come && now < evidence.sending_at + policy.give_up => {
            Decision::LookAgain { at: now + policy.settle, counts: true }
        }
        OnAbsent::ResendOnce | OnAbsent::Hold => Decision::Hold(HoldReason::LostAndAbsent),
    }
}

/// How long to let the list settle: the larger of 15 minutes and five times the slowest lag seen, unless it is set.
pub fn settle(set: Option<SignedDuration>, slowest_lag: Option<SignedDuration>) -> SignedDuration {
    set.unwrap_or_else(|| SignedDuration::from_mins(15).max(slowest_lag.unwrap_or_default().saturating_mul(5)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        settle: SignedDuration::from_secs(900),
        on_absent: OnAbsent::ResendOnce,
        give_up: SignedDuration::from_hours(1),
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn evidence<'a>(looked_at: i64, absent: &'a [RowId], before: Option<(Timestamp, &'a [RowId])>) -> Evidence<'a> {
        Evidence {
            accepted: false,
            sender_done_at: Some(at(30)),
            sending_at: at(0),
            looked_at: at(looked_at),
            absent,
            before,
            later_text_listed: true,
            list_is_proven: true,
            proof_may_come: false,
        }
    }

    const ONE: &[RowId] = &[RowId(1)];
    const TWO: &[RowId] = &[RowId(1), RowId(2)];

    #[test]
    fn a_look_before_settle_counts_from_the_senders_end_not_from_the_send() {
        let look = decide(&evidence(901, ONE, None), &POLICY);
        assert_eq!(look, Decision::LookAgain { at: at(930), counts: false });
    }

    #[test]
    fn one_look_is_never_enough() {
        assert_eq!(decide(&evidence(5_000, ONE, None), &POLICY), Decision::LookAgain { at: at(5_900), counts: true });
    }

    #[test]
    fn two_looks_must_agree_and_lie_a_settle_apart() {
        let disagree = decide(&evidence(5_000, ONE, Some((at(1_000), TWO))), &POLICY);
        assert_eq!(disagree, Decision::LookAgain { at: at(5_900), counts: true });
        let too_soon = decide(&evidence(1_500, ONE, Some((at(1_000), ONE))), &POLICY);
        assert_eq!(too_soon, Decision::LookAgain { at: at(1_900), counts: false });
        assert_eq!(decide(&evidence(1_900, ONE, Some((at(1_000), ONE))), &POLICY), Decision::Resend);
    }

    #[test]
    fn an_early_look_never_counts_as_the_first_of_two() {
        let early = decide(&evidence(5_000, ONE, Some((at(40), ONE))), &POLICY);
        assert_eq!(early, Decision::LookAgain { at: at(5_900), counts: true });
    }

    #[test]
    fn absence_is_resent_only_where_the_list_is_proven_and_has_caught_up() {
        let agreed = evidence(5_000, ONE, Some((at(1_000), ONE)));
        let hold = Decision::Hold(HoldReason::LostAndAbsent);
        assert_eq!(decide(&Evidence { later_text_listed: false, ..agreed.clone() }, &POLICY), hold);
        assert_eq!(decide(&Evidence { list_is_proven: false, ..agreed.clone() }, &POLICY), hold);
        assert_eq!(decide(&agreed, &Policy { on_absent: OnAbsent::Hold, ..POLICY }), hold);
    }

    #[test]
    fn proof_that_may_still_come_is_waited_for_where_it_would_be_acted_upon() {
        let behind =
            Evidence { later_text_listed: false, proof_may_come: true, ..evidence(2_000, ONE, Some((at(1_000), ONE))) };
        assert_eq!(decide(&behind, &POLICY), Decision::LookAgain { at: at(2_900), counts: true });
        let hold = Decision::Hold(HoldReason::LostAndAbsent);
        assert_eq!(decide(&behind, &Policy { on_absent: OnAbsent::Hold, ..POLICY }), hold);
        assert_eq!(decide(&Evidence { looked_at: at(3_600), ..behind }, &POLICY), hold);
    }

    #[test]
    fn an_accepted_batch_is_never_resent() {
        let agreed = evidence(5_000, ONE, Some((at(1_000), ONE)));
        let held = decide(&Evidence { accepted: true, ..agreed }, &POLICY);
        assert_eq!(held, Decision::Hold(HoldReason::AcceptedNeverListed));
    }

    #[test]
    fn a_sender_that_may_still_send_is_waited_for_and_never_overtaken() {
        let agreed = evidence(2_000, ONE, Some((at(1_000), ONE)));
        let frozen = Evidence { sender_done_at: None, ..agreed };
        assert_eq!(decide(&frozen, &POLICY), Decision::LookAgain { at: at(2_900), counts: false });
        let later = Evidence { looked_at: at(3_600), ..frozen };
        assert_eq!(decide(&later, &POLICY), Decision::Hold(HoldReason::SenderNotKnownToBeDone));
    }

    #[test]
    fn settle_follows_the_slowest_lag_unless_set() {
        assert_eq!(settle(None, None), SignedDuration::from_mins(15));
        assert_eq!(settle(None, Some(SignedDuration::from_mins(10))), SignedDuration::from_mins(50));
        assert_eq!(settle(Some(SignedDuration::from_secs(1)), Some(SignedDuration::from_mins(10))).as_secs(), 1);
    }
}
