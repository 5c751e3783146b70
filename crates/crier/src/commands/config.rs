//! `crier config`

use crate::{
    config::{KEYS, Kind, masked_url, variable},
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
    key: &'static str,
    value: String,
    from: String,
    variable: String,
    about: &'static str,
}

pub(crate) fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let lines: Vec<Line> = KEYS
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
                key: key.name,
                value,
                from: entry.origin.to_string(),
                variable: variable(key.name),
                about: key.about,
            }
        })
        .collect();
    if setup.json {
        output::print_json(&lines)?;
    } else if args.about {
        let rows = lines.into_iter().map(|line| vec![line.key.into(), line.value, line.variable, line.about.into()]);
        output::print_table(&["setting", "value", "environment", "meaning"], rows.collect())?;
    } else {
        let rows = lines.into_iter().map(|line| vec![line.key.into(), line.value, line.from]);
        output::print_table(&["setting", "value", "from"], rows.collect())?;
    }
    Ok(Done::Well)
}
