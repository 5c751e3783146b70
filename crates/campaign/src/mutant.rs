//! Twelve ways to break the protocol on purpose, one at a time. Compiled for the simulation only, which must catch each:
//! what it can't see broken it does not guard.

use std::cell::Cell;

/// A rule that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A send call that timed out is made again.
    RetryOnTimeout,
    /// Absence is believed without waiting for the list to settle.
    SettleSkipped,
    /// The wait counts from the send, whether or not its sender is known to be done.
    SettleFromSend,
    /// A worker that was not heard of is taken for dead, and its texts are sent again.
    LeaseExpiryResends,
    /// A 5xx is taken for *not sent*.
    ServerErrorIsNotSent,
    /// A bulk call of which one text was found is taken for sent as a whole.
    BulkIsAtomic,
    /// What the gateway accepted is not looked for.
    AcceptedIsNotAudited,
    /// A listed text that is a row's already may become another's.
    SmsIdClaimedTwice,
    /// A list that moved while it was read counts as read.
    PageDriftIgnored,
    /// Two rows to one number from one sender may be open at a time.
    NoLiveKeyLock,
    /// A new token is used before it is committed.
    TokenWrittenAfterUse,
    /// Opt-outs are not looked for after the claim.
    OptOutCheckedBeforeClaimOnly,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::RetryOnTimeout,
        Self::SettleSkipped,
        Self::SettleFromSend,
        Self::LeaseExpiryResends,
        Self::ServerErrorIsNotSent,
        Self::BulkIsAtomic,
        Self::AcceptedIsNotAudited,
        Self::SmsIdClaimedTwice,
        Self::PageDriftIgnored,
        Self::NoLiveKeyLock,
        Self::TokenWrittenAfterUse,
        Self::OptOutCheckedBeforeClaimOnly,
    ];

    /// Whether this rule is broken on this thread.
    pub fn is_on(self) -> bool {
        BROKEN.get() == Some(self)
    }

    /// Breaks a rule on this thread, or none.
    pub fn break_rule(mutant: Option<Self>) {
        BROKEN.set(mutant);
    }
}

thread_local! {
    static BROKEN: Cell<Option<Mutant>> = const { Cell::new(None) };
}
