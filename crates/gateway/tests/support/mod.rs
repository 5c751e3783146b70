//! A gateway of a few lines that a test scripts call by call, down to the bytes of an answer.

#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses its own part")]

use gateway::{Budget, Gateway, Settings};
use ledger::Ledger;
use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex, MutexGuard, Once},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub(crate) const EMPTY_LIST: &str =
    r#"{"status":"success","message":"success","data":{"current_page":1,"data":[],"last_page":1,"total":0}}"#;
pub(crate) const BULK_TAKEN: &str =
    r#"{"status": "success", "message": "SMS sent Successfully!", "delivery_status": "0"}"#;

/// One request as it came.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn bearer(&self) -> &str {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization: bearer "));
        line.map_or("", |line| &line["authorization: bearer ".len()..])
    }
}

/// What to do with a request.
pub(crate) enum Reply {
    /// Answer, keep the connection.
    Json(u16, String),
    /// Answer with these header lines too.
    With(u16, &'static str, String),
    /// Answer, then close without having said so.
    JsonThenClose(u16, String),
    /// Write these bytes and close.
    Raw(String),
    /// Close without an answer.
    Close,
    /// Never answer.
    Hang,
}

pub(crate) fn ok(body: &str) -> Reply {
    Reply::Json(200, body.to_owned())
}

/// Tokens as Passport gives them: a refresh works once and revokes the access token before.
pub(crate) struct Account {
    pub(crate) password: &'static str,
    pub(crate) expires_in: i64,
    pub(crate) password_grants: u32,
    pub(crate) presented: Vec<String>,
    issued: u32,
    access: String,
    refresh: String,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            password: "right",
            expires_in: 3600,
            password_grants: 0,
            presented: Vec::new(),
            issued: 0,
            access: String::new(),
            refresh: String::new(),
        }
    }
}

impl Account {
    pub(crate) fn grant(&mut self, asked: &Asked) -> Reply {
        let good = if asked.field("grant_type") == "password" {
            self.password_grants += 1;
            asked.field("password") == self.password
        } else {
            let token = asked.field("refresh_token").to_owned();
            let good = token == self.refresh;
            self.presented.push(token);
            good
        };
        if !good {
            return Reply::Json(401, r#"{"message":"The user credentials were incorrect."}"#.to_owned());
        }
        self.issued += 1;
        self.access = format!("access-{}", self.issued);
        self.refresh = format!("refresh-{}", self.issued);
        ok(&format!(
            r#"{{"customer_user_name":"u","customer_user_id":2,"expires_in":{},"access_token":"{}","refresh_token":"{}"}}"#,
            self.expires_in, self.access, self.refresh
        ))
    }

    pub(crate) fn lets_in(&self, asked: &Asked) -> bool {
        asked.bearer() == self.access
    }

    pub(crate) fn revoke(&mut self) {
        self.access = "revoked".to_owned();
    }

    pub(crate) fn no_token_came_twice(&self) -> bool {
        self.presented.iter().collect::<HashSet<_>>().len() == self.presented.len()
    }
}

/// The server and what it saw.
pub(crate) struct Server {
    pub(crate) base_url: String,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    pub(crate) connections: Arc<Mutex<u32>>,
    account: Arc<Mutex<Account>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Serves `/oauth/token` from an account, and everything else as `answer` says if the token is good.
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::scripted(move |account, asked| {
            if asked.path.ends_with("/oauth/token") {
                account.grant(asked)
            } else if account.lets_in(asked) {
                answer(asked)
            } else {
                Reply::Json(401, r#"{"message":"Unauthenticated."}"#.to_owned())
            }
        })
        .await
    }

    /// Serves everything as `answer` says.
    pub(crate) async fn scripted(answer: impl Fn(&mut Account, &Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/api", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let account = Arc::new(Mutex::new(Account::default()));
        let answer = Arc::new(answer);
        let (book, count, tokens) = (Arc::clone(&asked), Arc::clone(&connections), Arc::clone(&account));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                let (book, tokens, answer) = (Arc::clone(&book), Arc::clone(&tokens), Arc::clone(&answer));
                tokio::spawn(async move {
                    let decide = |asked: Asked| {
                        book.lock().unwrap().push(asked.clone());
                        answer(&mut tokens.lock().unwrap(), &asked)
                    };
                    // A client that goes away ends its connection.
                    let _gone = serve(stream, decide).await;
                });
            }
        });
        Self { base_url, asked, connections, account, task }
    }

    pub(crate) fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.path.clone()).collect()
    }
}

async fn serve(mut stream: TcpStream, decide: impl Fn(Asked) -> Reply) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let header = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
            Some(line[name.len()..].trim().to_owned())
        };
        let length: usize = header("content-length:").map_or(0, |length| length.parse().unwrap());
        while buffer.len() < end + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let body = String::from_utf8_lossy(&buffer[end..end + length]).into_owned();
        buffer.drain(..end + length);
        let fields = header("content-type:").map_or_else(Vec::new, |kind| fields(&kind, &body));
        let path = head.split(' ').nth(1).unwrap_or("").to_owned();
        let (bytes, close) = match decide(Asked { path, head, body, fields }) {
            Reply::Json(status, body) => (answer(status, "", &body), false),
            Reply::With(status, lines, body) => (answer(status, lines, &body), false),
            Reply::JsonThenClose(status, body) => (answer(status, "", &body), true),
            Reply::Raw(bytes) => (bytes, true),
            Reply::Close => (String::new(), true),
            Reply::Hang => std::future::pending().await,
        };
        stream.write_all(bytes.as_bytes()).await?;
        if close {
            return Ok(());
        }
    }
}

fn answer(status: u16, lines: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{lines}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn fields(kind: &str, body: &str) -> Vec<(String, String)> {
    let Some((_, boundary)) = kind.split_once("boundary=") else { return Vec::new() };
    body.split(&format!("--{boundary}"))
        .filter_map(|part| {
            let (head, value) = part.split_once("\r\n\r\n")?;
            let name = head.split_once("name=\"")?.1.split_once('"')?.0;
            Some((name.to_owned(), value.strip_suffix("\r\n")?.to_owned()))
        })
        .collect()
}

/// A ledger file that goes away with the value.
pub(crate) struct File(tempfile::TempDir);

impl File {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}/ledger.db", self.0.path().display())
    }
}

/// The ledger at `url`, as a process of its own sees it.
pub(crate) async fn ledger(url: &str) -> Ledger {
    let ledger = Ledger::open(url).await.unwrap();
    ledger.migrate().await.unwrap();
    ledger
}

pub(crate) fn settings(base_url: &str) -> Settings {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    let mut settings = Settings::new(
        base_url.parse().unwrap(),
        "client".to_owned(),
        "secret".into(),
        "user".to_owned(),
        "right".into(),
    );
    settings.connect_timeout = Duration::from_secs(2);
    settings.repeat_for = Duration::from_secs(2);
    settings
}

pub(crate) fn budget() -> Budget {
    Budget::in_process(1200, Duration::from_secs(60))
}

pub(crate) fn client(settings: &Settings, ledger: &Ledger, who: &str) -> Gateway {
    Gateway::new(settings.clone(), ledger.clone(), budget(), who.to_owned()).unwrap()
}
