//! Where the gateway is and how patient to be with it.

use jiff::tz::TimeZone;
use secrecy::SecretString;
use std::{fmt, time::Duration};
use url::Url;

/// Settings of [`Gateway`](crate::Gateway).
#[derive(Clone)]
pub struct Settings {
    /// As in `https://smsapi.example/api`.
    pub base_url: Url,
    /// The OAuth client.
    pub client_id: String,
    /// Its secret; the key of the stored token pair is derived from it.
    pub client_secret: SecretString,
    /// The account's user.
    pub username: String,
    /// Its password, used for the first token and when a refresh token was lost.
    pub password: SecretString,
    /// The longest a connection may take, TLS included. Must be shorter than the other timeouts: a send that times out while
    /// it connects is known to be unsent only by this one.
    pub connect_timeout: Duration,
    /// The longest a list, detail or sender call may take.
    pub read_timeout: Duration,
    /// The longest a send, dial or add-sender call may take.
    pub send_timeout: Duration,
    /// A process that has been refreshing the token for so long is dead. A token call may take half of it.
    pub refresh_stale: Duration,
    /// Least time between two password grants with the same credentials.
    pub password_grant_every: Duration,
    /// How long list, detail and sender calls are repeated while the gateway can't be reached.
    pub repeat_for: Duration,
    /// The zone in which the gateway reads `sent_since` and `sent_until`. Not specified; its rows are in UTC.
    pub filter_zone: TimeZone,
}

impl Settings {
    /// The defaults, for an account.
    pub fn new(
        base_url: Url,
        client_id: String,
        client_secret: SecretString,
        username: String,
        password: SecretString,
    ) -> Self {
        Self {
            base_url,
            client_id,
            client_secret,
            username,
            password,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(30),
            refresh_stale: Duration::from_secs(60),
            password_grant_every: Duration::from_secs(600),
            repeat_for: Duration::from_secs(15),
            filter_zone: TimeZone::UTC,
        }
    }

    /// The longest a token call may take: its claim must not look dead while it is made.
    pub(crate) fn token_timeout(&self) -> Duration {
        self.read_timeout.min(self.refresh_stale / 2)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("base_url", &self.base_url.as_str()).finish_non_exhaustive()
    }
}
