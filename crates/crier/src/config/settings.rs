//! The settings as the program uses them: parsed, checked, secrets wrapped.

use super::{ConfigError, Merged, Origin, keys::variable};
use campaign::{Money, Prices, Region};
use jiff::tz::TimeZone;
use secrecy::SecretString;
use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};
use url::{Host, Url};

/// All settings, parsed and checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) gateway: GatewaySettings,
    pub(crate) ledger_url: LedgerUrl,
    pub(crate) queue_url: QueueUrl,
    pub(crate) queue_name: String,
    pub(crate) worker: WorkerSettings,
    pub(crate) reconcile: ReconcileSettings,
    pub(crate) retention: RetentionSettings,
    pub(crate) ingest: IngestSettings,
    pub(crate) plan: PlanSettings,
    pub(crate) metrics: MetricsSettings,
    /// Where traces are sent.
    pub(crate) otlp_endpoint: Option<Url>,
    pub(crate) log: LogSettings,
}

/// Where the ledger is; not shown, for it may hold a password.
pub(crate) type LedgerUrl = SecretString;

/// Where the queue is.
#[derive(Clone, Debug)]
pub(crate) enum QueueUrl {
    /// Inside this process.
    Memory,
    /// On Redis.
    Redis(SecretString),
}

/// How the gateway is called.
#[derive(Clone, Debug)]
pub(crate) struct GatewaySettings {
    pub(crate) base_url: Url,
    client_id: Option<String>,
    client_secret: Option<SecretString>,
    username: Option<String>,
    password: Option<SecretString>,
    pub(crate) calls_per_window: u32,
    pub(crate) window: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) send_timeout: Duration,
    pub(crate) refresh_stale: Duration,
    pub(crate) password_grant_every: Duration,
}

/// What the gateway's token call wants.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) client_id: String,
    pub(crate) client_secret: SecretString,
    pub(crate) username: String,
    pub(crate) password: SecretString,
}

/// How batches are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerSettings {
    pub(crate) batch_len_max: usize,
    pub(crate) concurrency: usize,
    pub(crate) lease: Duration,
}

/// How the gateway's statuses are learned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReconcileSettings {
    pub(crate) settle: Option<Duration>,
    pub(crate) resend_once: bool,
    pub(crate) first_look: Duration,
    pub(crate) give_up: Duration,
    pub(crate) prove_within: Duration,
    pub(crate) inbound_every: Duration,
}

/// How long texts and numbers are kept.
#[derive(Clone, Debug)]
pub(crate) struct RetentionSettings {
    pub(crate) texts: Duration,
    pub(crate) numbers: Duration,
}

/// How files are read.
#[derive(Clone, Debug)]
pub(crate) struct IngestSettings {
    pub(crate) region: Region,
    /// The zone's name, checked.
    pub(crate) zone: String,
    pub(crate) max_segments: u32,
    pub(crate) unchanged_for: Duration,
}

/// What a text costs.
#[derive(Clone, Debug)]
pub(crate) struct PlanSettings {
    pub(crate) prices: Prices,
    pub(crate) currency: String,
    pub(crate) overlap_window: Duration,
}

/// Where metrics and health are served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MetricsSettings {
    /// `None`: nowhere.
    pub(crate) listen: Option<SocketAddr>,
    /// Somebody set it: a place that can't be had is an error.
    pub(crate) asked_for: bool,
    pub(crate) stuck_after: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub(crate) struct LogSettings {
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// Parses and checks the merged settings.
    pub(crate) fn parse(merged: &Merged) -> Result<Self, ConfigError> {
        Ok(Self {
            gateway: GatewaySettings::parse(merged)?,
            ledger_url: checked(merged, "ledger.url", "sqlite://FILE or postgres://…", |url| {
                let known = ["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
                known.then(|| SecretString::from(url))
            })?,
            queue_url: checked(merged, "queue.url", "memory: or redis://HOST:PORT", |url| match url {
                "memory:" | "memory" => Some(QueueUrl::Memory),
                _ if ["redis://", "rediss://", "unix://"].iter().any(|scheme| url.starts_with(scheme)) => {
                    Some(QueueUrl::Redis(SecretString::from(url)))
                }
                _ => None,
            })?,
            queue_name: checked(merged, "queue.name", "letters, digits, - and _", |name| {
                let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                (!name.is_empty() && name.chars().all(fine)).then(|| name.to_owned())
            })?,
            worker: WorkerSettings {
                batch_len_max: between(merged, "worker.batch_len_max", 1, 500)?,
                concurrency: between(merged, "worker.concurrency", 1, 64)?,
                lease: duration(merged, "worker.lease")?,
            },
            reconcile: ReconcileSettings {
                settle: merged
                    .entry("reconcile.settle")
                    .value
                    .is_some()
                    .then(|| duration(merged, "reconcile.settle"))
                    .transpose()?,
                resend_once: checked(merged, "reconcile.on_absent", "hold or resend_once", |word| match word {
                    "hold" => Some(false),
                    "resend_once" => Some(true),
                    _ => None,
                })?,
                first_look: duration(merged, "reconcile.first_look")?,
                give_up: duration(merged, "reconcile.give_up")?,
                prove_within: duration(merged, "reconcile.prove_within")?,
                inbound_every: duration(merged, "reconcile.inbound_every")?,
            },
            retention: RetentionSettings {
                texts: duration(merged, "retention.texts")?,
                numbers: duration(merged, "retention.numbers")?,
            },
            ingest: IngestSettings {
                region: checked(merged, "ingest.region", "a country's two letters, like GB", |code| {
                    Region::parse(code).ok()
                })?,
                zone: checked(merged, "ingest.zone", "a zone's name, like Europe/London", |name| {
                    TimeZone::get(name).ok().map(|_| name.to_owned())
                })?,
                max_segments: between(merged, "ingest.max_segments", 1, 255)?,
                unchanged_for: duration(merged, "ingest.unchanged_for")?,
            },
            plan: PlanSettings {
                prices: prices(merged)?,
                currency: text(merged, "plan.currency"),
                overlap_window: duration(merged, "plan.overlap_window")?,
            },
            metrics: MetricsSettings {
                listen: checked(
                    merged,
                    "metrics.listen",
                    "an address and a port, like 127.0.0.1:9464, or off",
                    |place| match place {
                        "off" => Some(None),
                        place => place.parse().ok().map(Some),
                    },
                )?,
                asked_for: merged.is_set("metrics.listen"),
                stuck_after: duration(merged, "metrics.stuck_after")?,
            },
            otlp_endpoint: otlp_endpoint(merged)?,
            log: LogSettings {
                filter: checked(merged, "log.filter", "a level or target=level pairs", |filter| {
                    tracing_subscriber::EnvFilter::try_new(filter).ok().map(|_| filter.to_owned())
                })?,
                format: checked(merged, "log.format", "text or json", |word| match word {
                    "text" => Some(LogFormat::Text),
                    "json" => Some(LogFormat::Json),
                    _ => None,
                })?,
            },
        })
    }
}

impl GatewaySettings {
    fn parse(merged: &Merged) -> Result<Self, ConfigError> {
        let secret = |name| merged.entry(name).value.clone().map(SecretString::from);
        let connect_timeout = duration(merged, "gateway.connect_timeout")?;
        for name in ["gateway.read_timeout", "gateway.send_timeout"] {
            if duration(merged, name)? <= connect_timeout {
                // A send that times out while it connects must be known to be unsent.
                let what = format!("{name} is not longer than gateway.connect_timeout");
                return Err(ConfigError::new(what, merged.entry(name).origin.clone(), "Make it longer."));
            }
        }
        Ok(Self {
            base_url: base_url(merged)?,
            client_id: merged.entry("gateway.client_id").value.clone(),
            client_secret: secret("gateway.client_secret"),
            username: merged.entry("gateway.username").value.clone(),
            password: secret("gateway.password"),
            calls_per_window: between(merged, "gateway.calls_per_window", 1, 1_000_000)?,
            window: duration(merged, "gateway.window")?,
            connect_timeout,
            read_timeout: duration(merged, "gateway.read_timeout")?,
            send_timeout: duration(merged, "gateway.send_timeout")?,
            refresh_stale: duration(merged, "gateway.refresh_stale")?,
            password_grant_every: duration(merged, "gateway.password_grant_every")?,
        })
    }

    /// The credentials if all are set, nothing if none is; some without the others are an error.
    pub(crate) fn credentials_if_any(&self) -> Result<Option<Credentials>, ConfigError> {
        let set =
            [self.client_id.is_some(), self.client_secret.is_some(), self.username.is_some(), self.password.is_some()];
        if set.contains(&true) { self.credentials().map(Some) } else { Ok(None) }
    }

    /// The credentials; an error that names what is not set.
    pub(crate) fn credentials(&self) -> Result<Credentials, ConfigError> {
        match (&self.client_id, &self.client_secret, &self.username, &self.password) {
            (Some(client_id), Some(client_secret), Some(username), Some(password)) => Ok(Credentials {
                client_id: client_id.clone(),
                client_secret: client_secret.clone(),
                username: username.clone(),
                password: password.clone(),
            }),
            (client_id, client_secret, username, password) => {
                let set = [client_id.is_some(), client_secret.is_some(), username.is_some(), password.is_some()];
                let names = ["gateway.client_id", "gateway.client_secret", "gateway.username", "gateway.password"];
                let missing: Vec<_> =
                    names.into_iter().zip(set).filter(|(_, set)| !set).map(|(name, _)| name).collect();
                let advice = format!(
                    "Set {} (or …_FILE), or [gateway] in crier.toml.",
                    missing.iter().map(|name| variable(name)).collect::<Vec<_>>().join(", ")
                );
                let verb = if missing.len() == 1 { "is" } else { "are" };
                let what = format!("the gateway's credentials are incomplete: {} {verb} not set", missing.join(", "));
                Err(ConfigError::new(what, Origin::Default, advice))
            }
        }
    }
}

/// The base URL: https, for it carries credentials, numbers and texts; plain http only to this machine.
fn base_url(merged: &Merged) -> Result<Url, ConfigError> {
    let name = "gateway.base_url";
    let url = checked(merged, name, "a URL, like https://smsapi.example/api", |url| {
        Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    })?;
    let here = match url.host() {
        Some(Host::Domain(domain)) => domain == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        None => false,
    };
    if url.scheme() == "http" && !here {
        let what = format!("{name} is plain http to another machine");
        return Err(ConfigError::new(
            what,
            merged.entry(name).origin.clone(),
            "Use https: it carries credentials and numbers.",
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let what = format!("{name} has credentials in it");
        let advice = "Set gateway.username and gateway.password instead.";
        return Err(ConfigError::new(what, merged.entry(name).origin.clone(), advice));
    }
    Ok(url)
}

/// A collector of traces; one that this program could not talk to is an error.
fn otlp_endpoint(merged: &Merged) -> Result<Option<Url>, ConfigError> {
    let name = "telemetry.otlp_endpoint";
    let entry = merged.entry(name);
    if entry.value.is_none() {
        return Ok(None);
    }
    if !telemetry::CAN_EXPORT {
        let what = format!("{name} is set, and this program was built without OpenTelemetry");
        let advice = "Unset it, or build crier with `--features otlp`.";
        return Err(ConfigError::new(what, entry.origin.clone(), advice));
    }
    checked(merged, name, "a URL without credentials, like http://127.0.0.1:4318", |url| {
        let plain = |url: &Url| url.has_host() && url.username().is_empty() && url.password().is_none();
        Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && plain(url))
    })
    .map(Some)
}

/// The prices of a segment, by prefix of the number.
fn prices(merged: &Merged) -> Result<Prices, ConfigError> {
    let price = |name: &str, entry: &super::layers::Entry| {
        let value = entry.value.as_deref().unwrap_or_default();
        value.parse::<Money>().map_err(|_| {
            let what = format!("{name} is `{value}`");
            ConfigError::new(what, entry.origin.clone(), "It takes a price, like 0.035, with at most 6 decimals.")
        })
    };
    let mut by_prefix = Vec::new();
    for (prefix, entry) in merged.prices() {
        by_prefix.push((prefix.to_owned(), price(&format!("{}{prefix}", super::PRICES), entry)?));
    }
    let default = merged.entry("plan.prices.default");
    let default = default.value.is_some().then(|| price("plan.prices.default", default)).transpose()?;
    Ok(Prices::new(by_prefix, default))
}

fn text(merged: &Merged, name: &'static str) -> String {
    merged.entry(name).value.clone().unwrap_or_default()
}

/// A value that `parse` accepts; `wanted` says what it would accept. Values of secrets are not repeated.
fn checked<T>(
    merged: &Merged,
    name: &'static str,
    wanted: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, ConfigError> {
    let entry = merged.entry(name);
    let value = entry.value.as_deref().unwrap_or_default();
    parse(value).ok_or_else(|| {
        let shown = if name.ends_with(".url") { super::masked_url(value) } else { value.to_owned() };
        ConfigError::new(format!("{name} is `{shown}`"), entry.origin.clone(), format!("It takes {wanted}."))
    })
}

fn between<T: FromStr + PartialOrd + Display + Copy>(
    merged: &Merged,
    name: &'static str,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    checked(merged, name, &format!("a number from {least} to {most}"), |value| {
        value.parse().ok().filter(|number| *number >= least && *number <= most)
    })
}

fn duration(merged: &Merged, name: &'static str) -> Result<Duration, ConfigError> {
    checked(merged, name, "a length of time, like 500ms, 30s, 15m or 72h", |value| {
        humantime::parse_duration(value).ok().filter(|length| !length.is_zero())
    })
}
