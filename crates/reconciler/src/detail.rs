//! The stragglers: one `/sms/detail` each, at growing intervals.

use crate::{Reconciler, RoundError, reading::delivery};
use campaign::{budget::CallClass, sweep};
use futures::{StreamExt, TryStreamExt};
use ledger::{Delivery, DueDetail};

/// Details that are asked for in one round, and at a time.
const DETAILS_A_ROUND: u32 = 200;
const DETAILS_AT_A_TIME: usize = 8;

impl Reconciler {
    /// Asks for the status of rows that are due.
    pub(crate) async fn ask_details(&self) -> Result<(), RoundError> {
        let due = self.ledger.due_details(DETAILS_A_ROUND, self.ledger.now()).await?;
        futures::stream::iter(due)
            .map(|due| async move { self.ask_detail(due).await })
            .buffer_unordered(DETAILS_AT_A_TIME)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    async fn ask_detail(&self, due: DueDetail) -> Result<(), RoundError> {
        let answer = self.gateway.detail(CallClass::Status, due.sms_id).await?;
        let now = self.ledger.now();
        // An id that the gateway does not know yet is pending: it gave us that id.
        let delivery = answer.as_ref().map_or(Some(Delivery::Pending), |sms| delivery(&sms.delivery_status));
        if delivery.is_none() {
            tracing::error!(sms.id = %due.sms_id, "the gateway gave a status that is none of its known ones");
        }
        let again = now + sweep::wait_before_look(self.settings.first_look, due.checks + 1);
        let again = (now < due.accepted_at + self.settings.give_up).then_some(again);
        self.ledger.record_detail(&due, delivery, again, now).await?;
        match (delivery, again) {
            (Some(Delivery::Sent), _) => telemetry::rows_became("sent", 1),
            (Some(Delivery::Failed), _) => telemetry::rows_became("failed", 1),
            (Some(Delivery::Pending) | None, None) => telemetry::rows_became("held", 1),
            (Some(Delivery::Pending) | None, Some(_)) => {}
        }
        Ok(())
    }
}
