//! Every setting that there is: its name, its default and what it means.

/// What kind of value a setting takes, as a person writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// A text that is never shown; may be read from a file named by `KEY_file`.
    Secret,
    /// A URL that may carry a password, which is never shown; may be read from a file named by `KEY_file`.
    SecretUrl,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) default: Option<&'static str>,
    pub(crate) kind: Kind,
    /// What it means, in words.
    pub(crate) about: &'static str,
}

const fn text(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, default: Some(default), kind: Kind::Text, about }
}

const fn optional(name: &'static str, about: &'static str) -> Key {
    Key { name, default: None, kind: Kind::Text, about }
}

const fn secret(name: &'static str, about: &'static str) -> Key {
    Key { name, default: None, kind: Kind::Secret, about }
}

const fn secret_url(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, default: Some(default), kind: Kind::SecretUrl, about }
}

/// All settings, by section.
pub(crate) const KEYS: &[Key] = &[
    text(
        "gateway.base_url",
        "https://smsapi.thehubwork.com/api",
        "the gateway's base URL; https unless it is this machine",
    ),
    secret("gateway.client_id", "the client id of the gateway's token call"),
    secret("gateway.client_secret", "the client secret of the gateway's token call"),
    secret("gateway.username", "the user name of the gateway account"),
    secret("gateway.password", "the password of the gateway account"),
    text("gateway.calls_per_window", "1200", "calls that the gateway allows in a window, all processes together"),
    text("gateway.window", "60s", "the window of that limit"),
    text("gateway.connect_timeout", "10s", "how long a connection may take"),
    text("gateway.read_timeout", "30s", "how long a token, list or detail call may take"),
    text("gateway.send_timeout", "60s", "how long a sending call may take before its outcome counts as unknown"),
    text("gateway.refresh_stale", "60s", "after this long a token refresh of another process counts as died"),
    text("gateway.password_grant_every", "10m", "how long after a password grant the next one may be made"),
    secret_url("ledger.url", "sqlite://crier.db", "sqlite://FILE or postgres://USER:PASSWORD@HOST/DATABASE"),
    secret_url("queue.url", "memory:", "memory: (inside `crier run`) or redis://HOST:PORT"),
    text("queue.name", "crier", "prefix of the queue's keys on Redis"),
    text("worker.batch_len_max", "100", "most destinations of one bulk call, 1 to 500"),
    text("worker.concurrency", "12", "gateway calls that one worker makes at once"),
    text("worker.lease", "60s", "how long a worker may be silent before a reconciler looks into what it left"),
    optional("reconcile.settle", "how long an unknown outcome is left alone between looks; learned when not set"),
    text("reconcile.on_absent", "hold", "hold or resend_once: what becomes of a text that the gateway never lists"),
    text("reconcile.first_look", "10s", "how long after a batch its first sweep comes, until that is learned"),
    text("reconcile.give_up", "72h", "how long a pending text is looked after"),
    text(
        "reconcile.prove_within",
        "1h",
        "how long to wait for proof that a silent worker is done, before its texts are held",
    ),
    text("reconcile.inbound_every", "60s", "how often to look for what people wrote: opt-outs and replies"),
    text("retention.texts", "30d", "how long texts are kept after the last row of their file is final"),
    text("retention.numbers", "90d", "how long numbers are kept after that"),
    text("ingest.region", "GB", "the country of numbers without a country code"),
    text("ingest.zone", "Europe/London", "the zone of times without an offset"),
    text("ingest.max_segments", "4", "most segments of one text"),
    text("ingest.unchanged_for", "10s", "how long a dropped file must lie unchanged"),
    optional("plan.prices.default", "the price of one segment to numbers that no other price is for"),
    text("plan.currency", "GBP", "the currency of the prices"),
    text("plan.overlap_window", "7d", "how far back `plan` looks for earlier texts to the same people"),
    text(
        "metrics.listen",
        "127.0.0.1:9464",
        "where a service serves /metrics, /livez and /readyz, or off; `run` only when it is set",
    ),
    text("metrics.stuck_after", "90s", "a loop that did not turn for so long is stuck: /livez and the watchdog say so"),
    optional(
        "telemetry.otlp_endpoint",
        "an OpenTelemetry collector that takes traces, like http://127.0.0.1:4318; for programs built with `--features otlp`",
    ),
    text(
        "log.filter",
        "info",
        "what is logged, as `info` or `worker=debug`; `run` logs from warn on unless it is set, other commands errors",
    ),
    text("log.format", "text", "text or json"),
];

/// What the name of a price begins with: `plan.prices.44` is that of numbers that begin with 44.
pub(crate) const PRICES: &str = "plan.prices.";

/// The prefix of a number whose price a setting of this name is.
pub(crate) fn priced_prefix(name: &str) -> Option<&str> {
    let digits = name.strip_prefix(PRICES)?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

/// The setting of that name.
pub(crate) fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The setting whose value the file at `name` holds: `gateway.password` for `gateway.password_file`.
pub(crate) fn twin_of(name: &str) -> Option<&'static Key> {
    name.strip_suffix("_file").and_then(key).filter(|key| key.kind != Kind::Text)
}

/// The known name that is nearest to a wrong one, if any is near.
pub(crate) fn nearest(wrong: &str) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let score = |name: &str| {
        // A right word in the wrong section is as near as a misspelt one in the right section.
        let word = if last(name) == last(wrong) { 0.9 } else { 0.0 };
        strsim::normalized_damerau_levenshtein(name, &wrong.to_lowercase()).max(word)
    };
    KEYS.iter()
        .map(|key| (score(key.name), key.name))
        .filter(|(score, _)| *score >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// The environment variable of a setting.
pub(crate) fn variable(name: &str) -> String {
    format!("CRIER_{}", name.replace('.', "__").to_uppercase())
}
