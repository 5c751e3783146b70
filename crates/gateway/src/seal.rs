//! Sealing of the token pair: nobody reads it without the client secret, and a pair can't be moved to another generation.

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{self, HKDF_SHA256},
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// The tokens that the gateway gave, and that only this crate sees.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Pair {
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
}

/// Keys derived from the client secret.
pub(crate) struct Sealer {
    pair: LessSafeKey,
    fingerprint: hmac::Key,
}

impl Sealer {
    pub(crate) fn new(client_secret: &SecretString) -> Self {
        let root = hkdf::Salt::new(HKDF_SHA256, b"crier token row").extract(client_secret.expose_secret().as_bytes());
        let pair = root.expand(&[b"pair"], &AES_256_GCM).expect("one key's length is below HKDF's limit");
        let fingerprint =
            root.expand(&[b"credentials"], hmac::HMAC_SHA256).expect("one key's length is below HKDF's limit");
        Self { pair: LessSafeKey::new(UnboundKey::from(pair)), fingerprint: hmac::Key::from(fingerprint) }
    }

    /// Tells one set of credentials from another without saying what they are.
    pub(crate) fn fingerprint(&self, client_id: &str, username: &str, password: &SecretString) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.fingerprint);
        for part in [client_id, username, password.expose_secret()] {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign().as_ref().to_vec()
    }

    /// Shape: 12 bytes of nonce, then the sealed JSON. `None` when the system has no randomness.
    pub(crate) fn seal(&self, generation: i64, pair: &Pair) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut body = serde_json::to_vec(pair).ok()?;
        let bound = Aad::from(generation.to_be_bytes());
        self.pair.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut body).ok()?;
        Some([nonce.as_slice(), &body].concat())
    }

    /// `None` when it was sealed with another client secret, for another generation, or was damaged.
    pub(crate) fn open(&self, generation: i64, sealed: &[u8]) -> Option<Pair> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
        let mut body = body.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.pair.open_in_place(nonce, Aad::from(generation.to_be_bytes()), &mut body).ok()?;
        serde_json::from_slice(plain).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Pair {
        Pair { access_token: "access".to_owned(), refresh_token: "refresh".to_owned() }
    }

    #[test]
    fn a_sealed_pair_opens_only_with_its_secret_and_generation() {
        let sealer = Sealer::new(&"secret".into());
        let sealed = sealer.seal(7, &pair()).unwrap();
        assert_eq!(sealer.open(7, &sealed).unwrap().refresh_token, "refresh");
        assert!(sealer.open(8, &sealed).is_none());
        assert!(Sealer::new(&"other".into()).open(7, &sealed).is_none());
        assert!(sealer.open(7, &sealed[..5]).is_none());
        let mut damaged = sealed.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(sealer.open(7, &damaged).is_none());
        assert!(!sealed.windows(7).any(|bytes| bytes == b"refresh"));
    }

    #[test]
    fn every_part_of_the_credentials_counts() {
        let sealer = Sealer::new(&"secret".into());
        let base = sealer.fingerprint("client", "user", &"password".into());
        assert_eq!(base, sealer.fingerprint("client", "user", &"password".into()));
        assert_ne!(base, sealer.fingerprint("clientu", "ser", &"password".into()));
        assert_ne!(base, sealer.fingerprint("client", "user", &"Password".into()));
        assert_ne!(base, Sealer::new(&"other".into()).fingerprint("client", "user", &"password".into()));
    }
}
