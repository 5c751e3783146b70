//! Merging the layers, and refusing what is not a setting.

use super::{
    ConfigError, Origin,
    keys::{KEYS, Key, Kind, key, nearest, priced_prefix, twin_of, variable},
};
use config::{Config, Environment, File, FileFormat, Value, ValueKind};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

/// What the settings are read from. The binary fills it from its surroundings; tests fill it with what they like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// `--config`, or `CRIER_CONFIG`.
    pub(crate) file: Option<PathBuf>,
    /// Files that are read if they are there, the first of them only.
    pub(crate) usual_files: Vec<PathBuf>,
    /// All environment variables.
    pub(crate) environment: Vec<(String, String)>,
    /// `--set section.key=value`, in order.
    pub(crate) set: Vec<String>,
}

/// A setting's value and where it came from. No `Debug`: it may be a secret.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) value: Option<String>,
    pub(crate) origin: Origin,
}

/// The merged settings, all of [`KEYS`].
#[derive(Clone)]
pub(crate) struct Merged {
    entries: BTreeMap<&'static str, Entry>,
    /// By the prefix that they are for.
    prices: BTreeMap<String, Entry>,
}

const PREFIX: &str = "CRIER_";

impl Merged {
    /// Merges the layers of `sources`.
    pub(crate) fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let variables = ours(&sources.environment);
        let from_variables = sources.file.is_none().then(|| find(&sources.environment, "CRIER_CONFIG")).flatten();
        let named = sources.file.clone().or_else(|| from_variables.map(PathBuf::from));
        let file = named.clone().or_else(|| sources.usual_files.iter().find(|path| path.is_file()).cloned());
        let mut builder = Config::builder();
        for key in KEYS {
            let origin = Some("default".to_owned());
            if let Some(default) = key.default {
                builder = builder
                    .set_default(key.name, Value::new(origin.as_ref(), ValueKind::from(default)))
                    .expect("the names of settings are paths");
            }
        }
        if let Some(path) = &file {
            builder = builder.add_source(File::from_str(&read_toml(path)?, FileFormat::Toml));
        }
        builder = builder.add_source(
            Environment::with_prefix("CRIER")
                .prefix_separator("_")
                .separator("__")
                .ignore_empty(true)
                .source(Some(variables)),
        );
        for pair in &sources.set {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                ConfigError::new(format!("`{pair}` sets nothing"), Origin::Flag, "Write it as section.key=value.")
            })?;
            let value = Value::new(Some(&"--set".to_owned()), ValueKind::from(value));
            builder = builder.set_override(name.trim(), value).map_err(|_| unknown(name, Origin::Flag))?;
        }
        let whole = builder.build().map_err(|error| {
            let origin = file.clone().map_or(Origin::Default, Origin::File);
            ConfigError::new(error.to_string(), origin, "Correct it there.")
        })?;
        let mut leaves = BTreeMap::new();
        flatten("", whole.cache, &mut leaves);
        Self::settle(leaves, file.as_deref())
    }

    /// Gives each leaf its origin, refuses what is no setting, and reads the files that hold secrets.
    fn settle(leaves: BTreeMap<String, Value>, file: Option<&Path>) -> Result<Self, ConfigError> {
        let (mut entries, mut prices) = (BTreeMap::new(), BTreeMap::new());
        let mut twins: Vec<(&'static Key, Entry)> = Vec::new();
        for (name, value) in leaves {
            let origin = match (value.origin(), file) {
                (Some("default"), _) => Origin::Default,
                (Some("--set"), _) => Origin::Flag,
                (Some(_), _) => Origin::Environment(variable(&name)),
                (None, Some(path)) => Origin::File(path.to_owned()),
                (None, None) => Origin::Default,
            };
            let plain = !matches!(value.kind, ValueKind::Table(_) | ValueKind::Array(_));
            let text = if matches!(value.kind, ValueKind::Nil) { None } else { value.into_string().ok() };
            let entry = Entry { value: text, origin };
            if let Some(prefix) = priced_prefix(&name).filter(|_| plain) {
                prices.insert(prefix.to_owned(), entry);
                continue;
            }
            match (key(&name), twin_of(&name)) {
                (Some(_), _) if !plain => {
                    let what = format!("{name} is a list or a table");
                    return Err(ConfigError::new(what, entry.origin, "Give it one value."));
                }
                (Some(key), _) => _ = entries.insert(key.name, entry),
                (None, Some(key)) => twins.push((key, entry)),
                (None, None) => return Err(unknown(&name, entry.origin)),
            }
        }
        for key in KEYS {
            entries.entry(key.name).or_insert(Entry { value: None, origin: Origin::Default });
        }
        for (key, twin) in twins {
            let direct = &entries[key.name];
            let direct_rank = if direct.value.is_some() { direct.origin.rank() } else { 0 };
            if direct_rank == twin.origin.rank() {
                let what = format!("both {0} and {0}_file are set", key.name);
                return Err(ConfigError::new(what, twin.origin, "Keep one of them."));
            }
            if direct_rank < twin.origin.rank() {
                entries.insert(key.name, read_secret(key, twin)?);
            }
        }
        Ok(Self { entries, prices })
    }

    /// Whether a setting was set anywhere, or has its default.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.entry(name).origin != Origin::Default
    }

    /// The prices by prefix, each with where it came from.
    pub(crate) fn prices(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.prices.iter().map(|(prefix, entry)| (prefix.as_str(), entry))
    }

    /// The value of a setting and where it came from.
    pub(crate) fn entry(&self, name: &str) -> &Entry {
        self.entries.get(name).expect("only known settings are asked for")
    }
}

/// The variables that are meant for us, and none that Kubernetes makes for a service named `crier…`.
fn ours(environment: &[(String, String)]) -> HashMap<String, String> {
    let injected = |name: &str| {
        !name.contains("__")
            && (name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.contains("_PORT"))
    };
    let meant = |name: &str| name.starts_with(PREFIX) && name != "CRIER_CONFIG" && !injected(name);
    environment.iter().filter(|(name, _)| meant(name)).cloned().collect()
}

fn find(environment: &[(String, String)], wanted: &str) -> Option<String> {
    environment.iter().find(|(name, value)| name == wanted && !value.is_empty()).map(|(_, value)| value.clone())
}

fn unknown(name: &str, origin: Origin) -> ConfigError {
    let advice = match nearest(name) {
        Some(near) => format!("Did you mean {near}?"),
        None => "`crier config` lists all settings.".to_owned(),
    };
    ConfigError::new(format!("there is no setting {name}"), origin, advice)
}

/// Reads a file and checks that it is TOML. The parser's own message would quote the line, which may hold a secret.
fn read_toml(path: &Path) -> Result<String, ConfigError> {
    let origin = || Origin::File(path.to_owned());
    let text = std::fs::read_to_string(path).map_err(|error| {
        ConfigError::new(format!("the file can't be read: {error}"), origin(), "Is its path right?")
    })?;
    if let Err(error) = toml::from_str::<toml::Table>(&text) {
        let line =
            error.span().and_then(|span| text.get(..span.start)).map_or(1, |before| before.matches('\n').count() + 1);
        let what = format!("line {line} is no TOML: {}", error.message());
        return Err(ConfigError::new(what, origin(), "Correct it there."));
    }
    Ok(text)
}

/// Reads the file that holds a secret; a trailing line end is not part of it.
fn read_secret(key: &Key, twin: Entry) -> Result<Entry, ConfigError> {
    debug_assert!(key.kind != Kind::Text, "only secrets have a twin");
    let path = twin.value.unwrap_or_default();
    let secret = std::fs::read_to_string(&path).map_err(|error| {
        let what = format!("{}_file names {path}, which can't be read: {error}", key.name);
        ConfigError::new(what, twin.origin.clone(), "Is the secret mounted, and may this user read it?")
    })?;
    let secret = secret.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        let what = format!("{}_file names {path}, which is empty", key.name);
        return Err(ConfigError::new(what, twin.origin, "Write the secret into it."));
    }
    Ok(Entry { value: Some(secret.to_owned()), origin: twin.origin })
}

/// Puts the leaves of nested tables under their dotted names.
fn flatten(prefix: &str, value: Value, leaves: &mut BTreeMap<String, Value>) {
    match value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
                flatten(&name, value, leaves);
            }
        }
        _ => _ = leaves.insert(prefix.to_owned(), value),
    }
}
