//! What the commands that take a file have in common: its flags, its preflight, its words.

use crate::{exit::Stop, output, setup::Setup};
use campaign::{Money, SenderId};
use gateway::{
    Gateway,
    wire::{SenderIdRow, SenderStatus},
};
use ingest::{Checks, Options, Preview, Survey, SurveyError, Terms};
use jiff::SignedDuration;
use ledger::Ledger;
use std::{collections::HashSet, path::PathBuf};

/// A campaign file and what holds for all of its rows.
#[derive(Debug, clap::Args)]
pub(crate) struct FileArgs {
    /// The CSV file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) options: OptionArgs,
}

/// Values for all rows of a file; a row's own cell wins over them.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct OptionArgs {
    /// Who the texts are from, unless the file has a column for it
    #[arg(long, value_name = "ID")]
    sender: Option<String>,

    /// The text, unless the file has a column for it; {{column}} is filled from the row, through filters as in
    /// {{name | first_name | default("there")}}
    #[arg(long)]
    text: Option<String>,

    /// The campaign's name [default: the file's]
    #[arg(long, value_name = "NAME")]
    campaign: Option<String>,

    /// Not before this time
    #[arg(long, value_name = "TIME")]
    send_at: Option<String>,

    /// Not after this time
    #[arg(long, value_name = "TIME")]
    valid_until: Option<String>,

    /// Campaigns with a higher one go first: high, normal, low or a number [default: normal]
    #[arg(long, value_name = "PRIORITY", allow_negative_numbers = true, value_parser = ingest::parse_priority)]
    priority: Option<i32>,

    /// Text nobody in these hours, as 21:00-08:00, by the clocks of the recipient's country
    #[arg(long, value_name = "HOURS")]
    quiet: Option<String>,

    /// Text people on these days only, as mon-fri
    #[arg(long, value_name = "DAYS")]
    weekdays: Option<String>,

    /// Send no more texts than this in a time, as 100/min, 5/s or 2000/h
    #[arg(long, value_name = "RATE")]
    rate: Option<String>,

    /// Reject texts with more segments [default: 4, by ingest.max_segments]
    #[arg(long, value_name = "NUMBER")]
    max_segments: Option<u32>,

    /// The encoding of a file that is not Unicode, as windows-1252
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,

    /// What it is launched on, where the command launches.
    #[arg(skip)]
    conditions: ConditionArgs,
}

/// What must hold for a file to be launched.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ConditionArgs {
    /// Refuse the file unless what `crier plan` said under this id still holds: file, opt-outs, approval, prices
    #[arg(long, value_name = "ID", requires = "file")]
    plan: Option<String>,

    /// Refuse the file if it costs more than this, by plan.prices
    #[arg(long, value_name = "AMOUNT", requires = "file")]
    max_cost: Option<Money>,
}

impl OptionArgs {
    /// The same, on these conditions.
    pub(crate) fn on(self, conditions: ConditionArgs) -> Self {
        Self { conditions, ..self }
    }

    /// The flags alone; what they leave open, `NAME.toml` beside the file may say, then the settings.
    fn flags(&self) -> Options {
        Options {
            sender: self.sender.clone(),
            text: self.text.clone(),
            campaign: self.campaign.clone(),
            send_at: self.send_at.clone(),
            valid_until: self.valid_until.clone(),
            region: None,
            zone: None,
            priority: self.priority,
            quiet: self.quiet.clone(),
            weekdays: self.weekdays.clone(),
            rate: self.rate.clone(),
            max_segments: self.max_segments,
            encoding: self.encoding.clone(),
            max_cost: self.conditions.max_cost,
            require_plan: self.conditions.plan.clone(),
        }
    }
}

/// What the settings say about files.
pub(crate) fn settings_options(setup: &Setup) -> Options {
    let settings = &setup.settings.ingest;
    Options {
        region: Some(settings.region.to_string()),
        zone: Some(settings.zone.clone()),
        max_segments: Some(settings.max_segments),
        ..Options::default()
    }
}

/// What the settings say about plans.
pub(crate) fn terms(setup: &Setup) -> Terms {
    let plan = &setup.settings.plan;
    Terms {
        prices: plan.prices.clone(),
        currency: plan.currency.clone(),
        batch_len_max: setup.settings.worker.batch_len_max,
        overlap_window: Some(SignedDuration::try_from(plan.overlap_window).unwrap_or(SignedDuration::MAX)),
    }
}

/// What holds for the file, and what it is checked against.
fn options(setup: &Setup, args: &FileArgs, approved: Option<HashSet<SenderId>>) -> anyhow::Result<(Options, Checks)> {
    let beside = Options::beside(&args.file).map_err(refused)?.unwrap_or_default();
    let options = args.options.flags().or(beside).or(settings_options(setup));
    Ok((options, Checks { approved, ..Checks::at(jiff::Timestamp::now()) }))
}

/// Reads the whole file and says what it would do, with so many samples at least; a refusal is exit 1.
pub(crate) async fn check(setup: &Setup, args: &FileArgs, samples: usize) -> anyhow::Result<Preview> {
    let (options, checks) = options(setup, args, None)?;
    let checks = Checks { samples_max: checks.samples_max.max(samples), ..checks };
    let path = args.file.clone();
    let checked = tokio::task::spawn_blocking(move || ingest::check(&path, &options, &checks)).await?;
    checked.map_err(refused)
}

/// Reads the whole file before it is launched; a refusal, or a condition that does not hold, is exit 1, with nothing queued.
pub(crate) async fn checked(
    setup: &Setup,
    ledger: &Ledger,
    args: &FileArgs,
    approved: Option<HashSet<SenderId>>,
    again: bool,
) -> anyhow::Result<Preview> {
    let (options, checks) = options(setup, args, approved)?;
    ingest::checked(ledger, &args.file, &options, &checks, &terms(setup), again).await.map_err(not_surveyed)
}

/// Reads the whole file and says what launching it would take.
pub(crate) async fn survey(
    setup: &Setup,
    ledger: Option<&Ledger>,
    args: &FileArgs,
    approved: Option<HashSet<SenderId>>,
) -> anyhow::Result<(Preview, Survey)> {
    let (options, checks) = options(setup, args, approved)?;
    let checks = Checks { shows_unapproved: true, ..checks };
    ingest::survey(ledger, &args.file, &options, &checks, &terms(setup)).await.map_err(not_surveyed)
}

fn not_surveyed(error: SurveyError) -> anyhow::Error {
    match error {
        SurveyError::Refused(refusal) => refused(refusal),
        SurveyError::NotHeld(why) => {
            Stop::failed(format!("the file is refused: {why}")).advise("Nothing of it was queued.").into()
        }
        SurveyError::Ledger(error) => error.into(),
    }
}

fn refused(refusal: ingest::Refusal) -> anyhow::Error {
    let what = refusal.to_string();
    Stop::failed(format!("the file is refused: {what}")).advise("Nothing of it was queued.").into()
}

/// The gateway's approved sender ids, recorded in the ledger.
pub(crate) async fn approved_by_gateway(ledger: &Ledger, gateway: &Gateway) -> anyhow::Result<HashSet<SenderId>> {
    let listed = gateway.senders().await.map_err(|error| crate::setup::gateway_stop(&error, gateway.address()))?;
    let senders = record(ledger, &listed).await?;
    Ok(senders.into_iter().filter(|(_, approved)| *approved).map(|(sender, _)| sender).collect())
}

/// Records what the gateway says about its sender ids.
pub(crate) async fn record(ledger: &Ledger, listed: &[SenderIdRow]) -> anyhow::Result<Vec<(SenderId, bool)>> {
    let approval =
        |row: &SenderIdRow| Some((SenderId::parse(&row.sender_id).ok()?, (row.status == SenderStatus::Approved)));
    let senders: Vec<(SenderId, bool)> = listed.iter().filter_map(approval).collect();
    ledger.record_senders(&senders, ledger.now()).await?;
    Ok(senders)
}

/// The approved sender ids: the gateway's if there are credentials, else the ledger's if it knows any.
pub(crate) async fn approved(setup: &Setup, ledger: &Ledger) -> anyhow::Result<Option<HashSet<SenderId>>> {
    if setup.settings.gateway.credentials_if_any()?.is_some() {
        let gateway = setup.gateway_alone(ledger, "ingest").await?;
        return Ok(Some(approved_by_gateway(ledger, &gateway).await?));
    }
    match ledger.approved_senders().await? {
        Some((_, senders)) => Ok(Some(senders.into_iter().collect())),
        None => Err(Stop::config("it is not known which senders are approved")
            .advise("Set gateway.client_id, client_secret, username and password, or start a reconciler that has them.")
            .into()),
    }
}

/// The preview in lines, for a person.
pub(crate) fn print(preview: &Preview) -> std::io::Result<()> {
    let count = output::count;
    output::print(format_args!("{}: {}", preview.file_name, output::counted(preview.rows, "row")))?;
    let mut rows = vec![
        vec!["can be sent".to_owned(), count(preview.sendable)],
        vec!["invalid".to_owned(), count(preview.invalid)],
        vec!["duplicate".to_owned(), count(preview.duplicates)],
        vec!["texts".to_owned(), count(preview.texts)],
        vec!["segments".to_owned(), count(preview.segments)],
        vec!["in GSM-7".to_owned(), count(preview.gsm7)],
        vec!["in UCS-2".to_owned(), count(preview.ucs2)],
    ];
    for (sender, number) in &preview.senders {
        rows.push(vec![format!("from {sender}"), count(*number)]);
    }
    if let [_, _, ..] = preview.campaigns.as_slice() {
        for campaign in &preview.campaigns {
            rows.push(vec![format!("campaign {}", campaign.name), count(campaign.rows)]);
        }
    }
    output::print_table(&["", "rows"], rows)?;
    for reject in &preview.rejects {
        output::print(format_args!("row {}: {}", reject.row_number, reject.reason))?;
    }
    let more = (preview.invalid + preview.duplicates).saturating_sub(preview.rejects.len() as u64);
    if more > 0 {
        output::print(format_args!("… and {} more that would not be sent", output::counted(more, "row")))?;
    }
    if !preview.forcing_ucs2.is_empty() {
        let shown = |(c, rows): (&char, &u64)| {
            let extra = preview.forcing_ucs2_extra.get(c).copied().unwrap_or(0);
            let costs = if extra > 0 { format!(", +{}", output::counted(extra, "segment")) } else { String::new() };
            format!("{c} ({}{costs})", output::counted(*rows, "row"))
        };
        let characters: Vec<_> = preview.forcing_ucs2.iter().map(shown).collect();
        output::print(format_args!("characters that force UCS-2: {}", characters.join(", ")))?;
        if preview.ucs2_extra_segments > 0 {
            let extra = output::counted(preview.ucs2_extra_segments, "segment");
            output::print(format_args!("plain characters in their place would save {extra}"))?;
        }
    }
    for note in &preview.notes {
        output::print(format_args!("note: {note}"))?;
    }
    Ok(())
}
