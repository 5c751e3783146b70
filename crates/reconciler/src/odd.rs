//! What the gateway says of one sender or one text and nobody expected.

use crate::RoundError;
use gateway::CallErrorKind;

/// Sets such answers aside while the work goes on: one sender whose list is refused must not keep the others from being read
/// for ever. Two senders in a row without an answer are no matter of one sender, and end the round like whatever else is wrong.
#[derive(Default)]
pub(crate) struct Odd {
    first: Option<RoundError>,
    silent: bool,
}

impl Odd {
    /// Goes on after an answer that concerns one sender or text alone.
    pub(crate) fn set_aside<T: Default>(&mut self, done: Result<T, RoundError>) -> Result<T, RoundError> {
        let was_silent = std::mem::take(&mut self.silent);
        match done {
            Err(RoundError::Gateway(error)) if error.kind() == CallErrorKind::Unexpected => {
                self.first.get_or_insert(error.into());
                Ok(T::default())
            }
            Err(RoundError::Gateway(error)) if error.kind() == CallErrorKind::Down && !was_silent => {
                self.silent = true;
                self.first.get_or_insert(error.into());
                Ok(T::default())
            }
            other => other,
        }
    }

    /// The first of them, once all others had their turn.
    pub(crate) fn told(self) -> Result<(), RoundError> {
        self.first.map_or(Ok(()), Err)
    }
}
