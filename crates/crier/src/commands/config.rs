//! `crier config`

use crate::{
    config::{KEYS, Kind, PRICES, masked_url, variable},
    exit::Done,
    output,
    setup::Setup,
};
use serde::Serialize;

/// Print the settings, secrets masked, and where each value came from
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also say what each setting means and which environment variable sets it
    #[arg(long)]
    about: bool,
}

#[derive(Serialize)]
struct Line {
    key: String,
    value: String,
    from: String,
    variable: String,
    about: &'static str,
}

pub(crate) fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let mut lines: Vec<Line> = KEYS
        .iter()
        .map(|key| {
            let entry = setup.merged.entry(key.name);
            let value = match (&entry.value, key.kind) {
                (None, _) => "not set".to_owned(),
                (Some(_), Kind::Secret) => "set".to_owned(),
                (Some(url), Kind::SecretUrl) => masked_url(url),
                (Some(value), Kind::Text) => value.clone(),
            };
            Line {
                key: key.name.to_owned(),
                value,
                from: entry.origin.to_string(),
                variable: variable(key.name),
                about: key.about,
            }
        })
        .collect();
    lines.extend(setup.merged.prices().map(|(prefix, entry)| {
        let key = format!("{PRICES}{prefix}");
        let value = entry.value.clone().unwrap_or_default();
        let about = "the price of one segment to numbers that begin so; the longest prefix counts";
        Line { value, from: entry.origin.to_string(), variable: variable(&key), about, key }
    }));
    if setup.json {
        output::print_json(&lines)?;
    } else if args.about {
        let rows = lines.into_iter().map(|line| vec![line.key, line.value, line.variable, line.about.into()]);
        output::print_table(&["setting", "value", "environment", "meaning"], rows.collect())?;
    } else {
        let rows = lines.into_iter().map(|line| vec![line.key, line.value, line.from]);
        output::print_table(&["setting", "value", "from"], rows.collect())?;
    }
    Ok(Done::Well)
}
