//! Access and refresh tokens, as Laravel Passport hands them out and burns them.

use crate::clock::Millis;
use crate::dice::Dice;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use std::collections::HashMap;

const YEAR_S: f64 = 31_536_000.0;

/// A fresh pair.
pub(crate) struct Pair {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

/// What became of a presented refresh token.
pub(crate) enum Refresh {
    Fresh(Pair),
    /// It had been used or revoked before.
    Burned,
    /// It was never issued here.
    Unknown,
}

struct RefreshToken {
    access: String,
    burned: bool,
    presented: u64,
}

/// All tokens of the one user.
pub(crate) struct Tokens {
    dice: Dice,
    access: HashMap<String, Millis>,
    refresh: HashMap<String, RefreshToken>,
}

impl Tokens {
    /// `salt` keeps the tokens of two sandboxes apart, whatever their seeds.
    pub(crate) fn new(salt: u64) -> Self {
        Self { dice: Dice::new(salt), access: HashMap::new(), refresh: HashMap::new() }
    }

    /// The password grant's pair. Older pairs stay good, as in Passport.
    pub(crate) fn issue(&mut self, now: Millis, written_now: Millis, expires_in_s: u32) -> Pair {
        self.pair(now, written_now, expires_in_s, f64::from(expires_in_s))
    }

    /// Exchanges a refresh token, which works once and takes its access token with it.
    pub(crate) fn refresh(&mut self, token: &str, now: Millis, written_now: Millis, expires_in_s: u32) -> Refresh {
        let Some(known) = self.refresh.get_mut(token) else { return Refresh::Unknown };
        known.presented += 1;
        if known.burned {
            return Refresh::Burned;
        }
        known.burned = true;
        self.access.remove(&known.access);
        // The recorded token of this grant claims to live for a year, against its own `expires_in`.
        Refresh::Fresh(self.pair(now, written_now, expires_in_s, YEAR_S))
    }

    pub(crate) fn opens(&self, access: &str, now: Millis) -> bool {
        self.access.get(access).is_some_and(|expires| now < *expires)
    }

    pub(crate) fn revoke(&mut self, access: Option<&str>) {
        match access {
            Some(access) => drop(self.access.remove(access)),
            None => self.access.clear(),
        }
    }

    pub(crate) fn burn_refresh(&mut self) {
        self.refresh.values_mut().for_each(|token| token.burned = true);
    }

    pub(crate) fn presented_twice(&self) -> u64 {
        self.refresh.values().filter(|token| token.presented > 1).count() as u64
    }

    pub(crate) fn forget(&mut self) {
        self.access.clear();
        self.refresh.clear();
    }

    pub(crate) fn forget_presentations(&mut self) {
        self.refresh.values_mut().for_each(|token| token.presented = 0);
    }

    fn pair(&mut self, now: Millis, written_now: Millis, expires_in_s: u32, claimed_life_s: f64) -> Pair {
        let issued = written_now as f64 / 1000.0;
        let claims = json!({
            "aud": "00000000-0000-4000-8000-000000000000",
            "jti": self.dice.hex(80),
            "iat": issued,
            "nbf": issued,
            "exp": issued + claimed_life_s,
            "sub": "2",
            "scopes": ["sms:send", "sms:list", "sms:detail", "sender-id:list", "sender-id:add", "call:click_to_dial"],
        });
        let access = format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"RS256"}"#),
            URL_SAFE_NO_PAD.encode(claims.to_string()),
            URL_SAFE_NO_PAD.encode(self.dice.bytes(512)),
        );
        let refresh = format!("def50200{}", self.dice.hex(944));
        self.access.insert(access.clone(), now.saturating_add(i64::from(expires_in_s) * 1000));
        self.refresh.insert(refresh.clone(), RefreshToken { access: access.clone(), burned: false, presented: 0 });
        Pair { access, refresh }
    }
}
