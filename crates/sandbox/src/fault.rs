//! Faults that a test scripts, and when they strike.

use crate::dice::Dice;
use crate::operation::Operation;
use serde::{Deserialize, Serialize};

/// When a faulty call has its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Never.
    None,
    /// Before the answer is delayed or replaced.
    Before,
    /// After the delay.
    After,
}

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The connection is cut before the request is read; no effect.
    RefuseConnection,
    /// This status, no effect. 5xx come as HTML, the rest in Laravel's JSON; a 422 blames `field`.
    Status {
        /// HTTP status.
        status: u16,
        /// What a 422 blames: `source`, `text`, `destination.3`, …
        field: Option<String>,
    },
    /// The effect is had, then this status follows, as HTML.
    ProcessThenFail {
        /// HTTP status.
        status: u16,
    },
    /// Of a bulk call only the first part of the destinations is accepted, then this status follows; 200 is a success as ever.
    ProcessPart {
        /// Share of the destinations, rounded down.
        part: f64,
        /// HTTP status.
        status: u16,
    },
    /// The effect is had and the connection cut without an answer.
    DropAnswer,
    /// The effect is had and the connection cut in the middle of the answer's body.
    CutAnswer,
    /// The answer comes late.
    Delay {
        /// By so much.
        ms: u64,
        /// The effect comes before the delay, or after it.
        effect: Effect,
    },
    /// The effect comes later than the answer, which is a cut connection or this status.
    LateEffect {
        /// By so much.
        ms: u64,
        /// HTTP status; none cuts the connection.
        status: Option<u16>,
    },
    /// From this call on every call gets 429.
    Throttle {
        /// For so long.
        ms: u64,
        /// `Retry-After`.
        retry_after_s: u32,
    },
    /// The call's access token is revoked before it is looked at; at the token call, every access token is.
    RevokeToken,
    /// Every refresh token is burned before the call goes on as usual.
    BurnRefresh,
    /// HTML with 200.
    Html200 {
        /// `None` or `Before`.
        effect: Effect,
    },
    /// 302 to a login page.
    Redirect {
        /// `None` or `Before`.
        effect: Effect,
    },
    /// At a send: its texts become visible so much later. At the list: texts younger than this are left out of the answer.
    ListLag {
        /// By so much.
        ms: u64,
    },
    /// The list's `total` changes from page to page.
    ShuffleTotal,
    /// The texts are accepted and never listed; by id they are found.
    Unlisted,
}

/// One scripted fault: which calls it may strike, and which of those it does.
///
/// Shape: of the calls of `operation` (any, when none is given) the first `after` are spared; then each is struck with probability `share`
/// (every one, when none is given) until `times` have been. At most one rule strikes a call: the first that does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawRule", into = "RawRule")]
pub struct Rule {
    /// The call that it is for; none means any.
    pub operation: Option<Operation>,
    /// What goes wrong.
    pub fault: Fault,
    /// Probability, 0 to 1.
    pub share: Option<f64>,
    /// Strikes in all.
    pub times: Option<u64>,
    /// Calls that are spared first.
    pub after: u64,
}

impl Rule {
    /// Strikes every call of one operation.
    pub fn every(operation: Operation, fault: Fault) -> Self {
        Self { operation: Some(operation), fault, share: None, times: None, after: 0 }
    }

    /// Strikes the next call of one operation, once.
    pub fn once(operation: Operation, fault: Fault) -> Self {
        Self { times: Some(1), ..Self::every(operation, fault) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Name {
    RefuseConnection,
    Status,
    ProcessThenFail,
    ProcessPart,
    DropAnswer,
    CutAnswer,
    Delay,
    LateEffect,
    Throttle,
    RevokeToken,
    BurnRefresh,
    #[serde(rename = "html_200")]
    Html200,
    Redirect,
    ListLag,
    ShuffleTotal,
    Unlisted,
}

/// A rule as it is written: flat, and unknown keys are errors, so that a test's typo does not pass for a fault.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operation: Option<Operation>,
    fault: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    #[serde(default)]
    after: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    effect: Option<Effect>,
}

/// A rule that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("fault {fault} {wrong}")]
pub struct RuleError {
    fault: String,
    wrong: &'static str,
}

impl Fault {
    pub(crate) fn name(&self) -> Name {
        match self {
            Fault::RefuseConnection => Name::RefuseConnection,
            Fault::Status { .. } => Name::Status,
            Fault::ProcessThenFail { .. } => Name::ProcessThenFail,
            Fault::ProcessPart { .. } => Name::ProcessPart,
            Fault::DropAnswer => Name::DropAnswer,
            Fault::CutAnswer => Name::CutAnswer,
            Fault::Delay { .. } => Name::Delay,
            Fault::LateEffect { .. } => Name::LateEffect,
            Fault::Throttle { .. } => Name::Throttle,
            Fault::RevokeToken => Name::RevokeToken,
            Fault::BurnRefresh => Name::BurnRefresh,
            Fault::Html200 { .. } => Name::Html200,
            Fault::Redirect { .. } => Name::Redirect,
            Fault::ListLag { .. } => Name::ListLag,
            Fault::ShuffleTotal => Name::ShuffleTotal,
            Fault::Unlisted => Name::Unlisted,
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => f.write_str(&name),
            Ok(_) | Err(_) => write!(f, "{self:?}"),
        }
    }
}

impl TryFrom<RawRule> for Rule {
    type Error = RuleError;

    fn try_from(raw: RawRule) -> Result<Self, RuleError> {
        let error = |wrong| RuleError { fault: raw.fault.to_string(), wrong };
        let ms = raw.ms.ok_or_else(|| error("needs ms"));
        if [raw.share, raw.part].into_iter().flatten().any(|share| !(0.0..=1.0).contains(&share)) {
            return Err(error("has a share outside 0 to 1"));
        }
        if raw.status.is_some_and(|status| !(200..=599).contains(&status)) {
            return Err(error("has a status outside 200 to 599"));
        }
        let replaced = match raw.effect {
            Some(Effect::After) => Err(error("can have its effect none or before")),
            Some(effect @ (Effect::None | Effect::Before)) => Ok(effect),
            None => Ok(Effect::None),
        };
        let fault = match raw.fault {
            Name::RefuseConnection => Fault::RefuseConnection,
            Name::Status => {
                Fault::Status { status: raw.status.ok_or_else(|| error("needs status"))?, field: raw.field.clone() }
            }
            Name::ProcessThenFail => Fault::ProcessThenFail { status: raw.status.unwrap_or(500) },
            Name::ProcessPart => {
                Fault::ProcessPart { part: raw.part.unwrap_or(0.5), status: raw.status.unwrap_or(500) }
            }
            Name::DropAnswer => Fault::DropAnswer,
            Name::CutAnswer => Fault::CutAnswer,
            Name::Delay => Fault::Delay { ms: ms?, effect: raw.effect.unwrap_or(Effect::Before) },
            Name::LateEffect => Fault::LateEffect { ms: ms?, status: raw.status },
            Name::Throttle => Fault::Throttle { ms: ms?, retry_after_s: raw.retry_after_s.unwrap_or(1) },
            Name::RevokeToken => Fault::RevokeToken,
            Name::BurnRefresh => Fault::BurnRefresh,
            Name::Html200 => Fault::Html200 { effect: replaced? },
            Name::Redirect => Fault::Redirect { effect: replaced? },
            Name::ListLag => Fault::ListLag { ms: ms? },
            Name::ShuffleTotal => Fault::ShuffleTotal,
            Name::Unlisted => Fault::Unlisted,
        };
        Ok(Self { operation: raw.operation, fault, share: raw.share, times: raw.times, after: raw.after })
    }
}

impl From<Rule> for RawRule {
    fn from(rule: Rule) -> Self {
        let mut raw = Self {
            operation: rule.operation,
            fault: rule.fault.name(),
            share: rule.share,
            times: rule.times,
            after: rule.after,
            ms: None,
            status: None,
            field: None,
            part: None,
            retry_after_s: None,
            effect: None,
        };
        match rule.fault {
            Fault::Status { status, field } => (raw.status, raw.field) = (Some(status), field),
            Fault::ProcessThenFail { status } => raw.status = Some(status),
            Fault::ProcessPart { part, status } => (raw.part, raw.status) = (Some(part), Some(status)),
            Fault::Delay { ms, effect } => (raw.ms, raw.effect) = (Some(ms), Some(effect)),
            Fault::LateEffect { ms, status } => (raw.ms, raw.status) = (Some(ms), status),
            Fault::Throttle { ms, retry_after_s } => (raw.ms, raw.retry_after_s) = (Some(ms), Some(retry_after_s)),
            Fault::Html200 { effect } | Fault::Redirect { effect } => raw.effect = Some(effect),
            Fault::ListLag { ms } => raw.ms = Some(ms),
            Fault::RefuseConnection
            | Fault::DropAnswer
            | Fault::CutAnswer
            | Fault::RevokeToken
            | Fault::BurnRefresh
            | Fault::ShuffleTotal
            | Fault::Unlisted => {}
        }
        raw
    }
}

/// A rule and how often it was asked and struck.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Loaded {
    pub(crate) rule: Rule,
    pub(crate) seen: u64,
    pub(crate) struck: u64,
}

/// The rules in force.
#[derive(Debug)]
pub(crate) struct Script {
    dice: Dice,
    rules: Vec<Loaded>,
}

impl Script {
    pub(crate) fn new(seed: u64, rules: Vec<Rule>) -> Self {
        let mut script = Self { dice: Dice::new(seed), rules: Vec::new() };
        rules.into_iter().for_each(|rule| script.add(rule));
        script
    }

    pub(crate) fn add(&mut self, rule: Rule) {
        self.rules.push(Loaded { rule, seen: 0, struck: 0 });
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(crate) fn rules(&self) -> &[Loaded] {
        &self.rules
    }

    /// The fault that strikes this call, if one does.
    pub(crate) fn strike(&mut self, operation: Operation) -> Option<Fault> {
        for loaded in &mut self.rules {
            if loaded.rule.operation.is_some_and(|wanted| wanted != operation) {
                continue;
            }
            loaded.seen += 1;
            let spared = loaded.seen <= loaded.rule.after;
            let spent = loaded.rule.times.is_some_and(|times| loaded.struck >= times);
            if spared || spent || !loaded.rule.share.is_none_or(|share| self.dice.hits(share)) {
                continue;
            }
            loaded.struck += 1;
            return Some(loaded.rule.fault.clone());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_rule_reads_back_as_it_was_written() {
        for json in [
            r#"{"operation":"bulk_send","fault":"drop_answer","share":0.05,"after":3}"#,
            r#"{"fault":"status","status":503,"times":2}"#,
            r#"{"operation":"list","fault":"delay","ms":5,"effect":"after"}"#,
            r#"{"operation":"send","fault":"html_200","effect":"before"}"#,
        ] {
            let read = rule(json);
            assert_eq!(rule(&serde_json::to_string(&read).unwrap()), read);
        }
    }

    #[test]
    fn a_typo_in_a_rule_is_an_error() {
        for json in [r#"{"fault":"drop_anser"}"#, r#"{"fault":"drop_answer","tims":1}"#, r#"{"fault":"delay"}"#] {
            assert!(serde_json::from_str::<Rule>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn after_and_times_frame_the_struck_calls() {
        let mut script =
            Script::new(1, vec![rule(r#"{"operation":"send","fault":"drop_answer","after":1,"times":2}"#)]);
        let struck: Vec<bool> = (0..5).map(|_| script.strike(Operation::Send).is_some()).collect();
        assert_eq!(struck, [false, true, true, false, false]);
        assert_eq!(script.strike(Operation::List), None);
    }

    #[test]
    fn a_share_strikes_about_its_share_and_the_same_ones_each_time() {
        let run = || {
            let mut script = Script::new(7, vec![rule(r#"{"fault":"drop_answer","share":0.05}"#)]);
            (0..10_000).map(|_| script.strike(Operation::BulkSend).is_some()).collect::<Vec<_>>()
        };
        let struck = run().iter().filter(|struck| **struck).count();
        assert!((400..600).contains(&struck), "{struck}");
        assert_eq!(run(), run());
    }
}
