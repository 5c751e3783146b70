//! One sandbox, one client, and the calls that the tests make.

#![allow(clippy::allow_attributes, reason = "each test file uses a part of this one")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of this one")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use reqwest::multipart::Form;
use reqwest::{Client, Response};
use sandbox::{Config, Rule, Running, Sandbox};
use serde_json::Value;
use std::time::Duration;

pub const SENDER: &str = "ACME";

pub struct Rig {
    pub running: Running,
    pub client: Client,
    pub access: String,
    pub refresh: String,
}

/// Fast enough for a test, and otherwise as it comes.
pub fn quick() -> Config {
    Config { delivery_min_ms: 0, delivery_max_ms: 0, ..Config::default() }
}

impl Rig {
    pub async fn new(config: Config) -> Self {
        let mut rig = Self::stranger(config).await;
        let tokens: Value = rig.password_grant().await.json().await.unwrap();
        rig.access = tokens["access_token"].as_str().unwrap().to_owned();
        rig.refresh = tokens["refresh_token"].as_str().unwrap().to_owned();
        rig
    }

    /// A rig that holds no token.
    pub async fn stranger(config: Config) -> Self {
        // Another test of this process may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let running = Sandbox::start(config, listener).unwrap();
        Self { running, client, access: String::new(), refresh: String::new() }
    }

    pub async fn faulty(rules: &str) -> Self {
        let rig = Self::new(quick()).await;
        rig.running.script(serde_json::from_str::<Vec<Rule>>(rules).unwrap());
        rig
    }

    pub async fn password_grant(&self) -> Response {
        let config = Config::default();
        let form = [
            ("grant_type", "password"),
            ("client_id", &config.client_id),
            ("client_secret", &config.client_secret),
            ("username", &config.username),
            ("password", &config.password),
        ];
        self.post("/oauth/token", &form).await.unwrap()
    }

    pub async fn refresh_grant(&self, refresh: &str) -> Response {
        let config = Config::default();
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", &config.client_id),
            ("client_secret", &config.client_secret),
            ("refresh_token", refresh),
        ];
        self.post("/oauth/token", &form).await.unwrap()
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> reqwest::Result<Response> {
        let form =
            fields.iter().fold(Form::new(), |form, (name, value)| form.text((*name).to_owned(), (*value).to_owned()));
        let url = format!("{}{path}", self.running.base_url);
        self.client.post(url).bearer_auth(&self.access).multipart(form).send().await
    }

    pub async fn get(&self, path: &str) -> reqwest::Result<Response> {
        self.client.get(format!("{}{path}", self.running.base_url)).bearer_auth(&self.access).send().await
    }

    pub async fn bulk(&self, text: &str, destinations: &[&str]) -> reqwest::Result<Response> {
        let mut fields = vec![("source", SENDER), ("text", text)];
        fields.extend(destinations.iter().map(|destination| ("destination[]", *destination)));
        self.post("/sms/bulk-send", &fields).await
    }

    pub async fn send(&self, text: &str, destination: &str) -> reqwest::Result<Response> {
        self.post("/sms/send", &[("source", SENDER), ("destination", destination), ("text", text)]).await
    }

    /// `data` of one page of the list.
    pub async fn list(&self, query: &str) -> Value {
        let mut page: Value = self.get(&format!("/sms/list?{query}")).await.unwrap().json().await.unwrap();
        page["data"].take()
    }

    pub fn control(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().unwrap();
        self.client.request(method, format!("http://{}/sandbox{path}", self.running.addr))
    }
}

pub fn ids(page: &Value) -> Vec<u64> {
    page["data"].as_array().unwrap().iter().map(|row| row["sms_id"].as_u64().unwrap()).collect()
}

/// Waits until the condition holds, and says so when it never does.
pub async fn eventually<F: AsyncFnMut() -> bool>(what: &str, holds: F) {
    testbed::eventually_async(what, Duration::from_secs(10), holds).await;
}
