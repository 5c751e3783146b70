//! What was counted, and how Prometheus reads it.

use crate::catalogue::{CATALOGUE, Kind, Metric};
use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

type Labels = Vec<&'static str>;

/// The values of one metric, by its labels.
#[derive(Default)]
struct Values(BTreeMap<Labels, Value>);

#[derive(Clone, Debug, Default)]
struct Value {
    /// The count of a counter, the value of a gauge, the sum of a histogram.
    number: f64,
    /// Observations up to each bound, not added up, and those beyond the last.
    buckets: Vec<u64>,
}

static REGISTRY: LazyLock<Mutex<BTreeMap<&'static str, Values>>> = LazyLock::new(|| {
    let values = |metric: &Metric| {
        let of = |labels: &&'static [&'static str]| (labels.to_vec(), Value::new(metric.kind));
        (metric.name, Values(metric.begin_with.iter().map(of).collect()))
    };
    Mutex::new(CATALOGUE.iter().map(values).collect())
});

impl Value {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Histogram(bounds) => Self { number: 0.0, buckets: vec![0; bounds.len() + 1] },
            Kind::Counter | Kind::Gauge => Self::default(),
        }
    }
}

fn registry() -> MutexGuard<'static, BTreeMap<&'static str, Values>> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn metric(name: &str) -> &'static Metric {
    CATALOGUE.iter().find(|metric| metric.name == name).expect("a metric is in the catalogue")
}

fn with(name: &'static str, labels: &[&'static str], change: impl FnOnce(&Metric, &mut Value)) {
    let metric = metric(name);
    debug_assert_eq!(metric.labels.len(), labels.len(), "labels of {name}");
    let mut registry = registry();
    let values = registry.get_mut(name).expect("every metric is registered");
    change(metric, values.0.entry(labels.to_vec()).or_insert_with(|| Value::new(metric.kind)));
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub(crate) fn add(name: &'static str, labels: &[&'static str], count: u64) {
    with(name, labels, |_, value| value.number += count as f64);
}

pub(crate) fn observe(name: &'static str, labels: &[&'static str], observed: impl IntoIterator<Item = f64>) {
    with(name, labels, |metric, value| {
        let Kind::Histogram(bounds) = metric.kind else { return };
        for observed in observed {
            value.number += observed;
            value.buckets[bounds.partition_point(|bound| *bound < observed)] += 1;
        }
    });
}

/// Sets a gauge.
pub fn set(name: &'static str, labels: &[&'static str], number: f64) {
    with(name, labels, |_, value| value.number = number);
}

/// Forgets the values of a gauge: what can't be read now is not shown as it was.
pub fn unset(name: &'static str) {
    registry().get_mut(name).expect("every metric is registered").0.clear();
}

/// Everything as Prometheus reads it. A gauge without a value is `NaN`, so that its name is never missing.
pub fn render() -> String {
    let registry = registry();
    let mut text = String::with_capacity(8 << 10);
    for metric in CATALOGUE {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let values = &registry[metric.name].0;
        let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {kind}", metric.name, metric.help, metric.name);
        if values.is_empty() && metric.labels.is_empty() {
            let _ = writeln!(text, "{} NaN", metric.name);
        }
        for (labels, value) in values {
            show(&mut text, metric, labels, value);
        }
    }
    text
}

fn show(text: &mut String, metric: &Metric, labels: &Labels, value: &Value) {
    let pairs: Vec<String> =
        metric.labels.iter().zip(labels).map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let with = |more: Option<String>| {
        let all: Vec<String> = pairs.iter().cloned().chain(more).collect();
        if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
    };
    let name = metric.name;
    // A write to a string does not fail.
    let _ = match metric.kind {
        Kind::Counter | Kind::Gauge => writeln!(text, "{name}{} {}", with(None), value.number),
        Kind::Histogram(bounds) => {
            let mut count = 0;
            let bounds = bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (bound, bucket) in bounds.zip(&value.buckets) {
                count += bucket;
                let _ = writeln!(text, "{name}_bucket{} {count}", with(Some(format!("le=\"{bound}\""))));
            }
            writeln!(text, "{name}_sum{} {}\n{name}_count{} {count}", with(None), value.number, with(None))
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, time::Duration};

    #[test]
    fn every_metric_is_shown_before_anything_happened_and_named_by_the_rules() {
        let text = render();
        let mut names = BTreeSet::new();
        for metric in CATALOGUE {
            assert!(text.contains(&format!("# TYPE {} ", metric.name)), "{}", metric.name);
            assert!(metric.name.starts_with("crier_") && names.insert(metric.name), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.begin_with.iter().all(|labels| labels.len() == metric.labels.len()), "{}", metric.name);
        }
    }

    #[test]
    fn buckets_add_up() {
        crate::rows_sent_after([0.5, 1.0, 4.0, 100_000.0].into_iter().map(Duration::from_secs_f64));
        let text = render();
        for line in [
            "_bucket{le=\"1\"} 2",
            "_bucket{le=\"5\"} 3",
            "_bucket{le=\"86400\"} 3",
            "_bucket{le=\"+Inf\"} 4",
            "_sum 100005.5",
            "_count 4",
        ] {
            assert!(text.contains(&format!("crier_row_queued_to_sent_seconds{line}")), "no {line} in {text}");
        }
    }

    #[test]
    fn a_call_is_counted_by_what_it_asked_and_how_it_ended() {
        crate::gateway_called("list", "throttled", Duration::from_millis(30));
        let text = render();
        assert!(text.contains("crier_gateway_requests_total{operation=\"list\",outcome=\"throttled\"} 1"), "{text}");
        assert!(text.contains("crier_gateway_throttled_total 1"), "{text}");
        assert!(text.contains("crier_gateway_request_seconds_bucket{operation=\"list\",le=\"0.05\"} 1"), "{text}");
    }

    #[test]
    fn a_gauge_that_can_not_be_read_is_not_shown_as_it_was() {
        set("crier_rows_held", &[], 3.0);
        assert!(render().contains("crier_rows_held 3"));
        unset("crier_rows_held");
        assert!(render().contains("crier_rows_held NaN"));
    }
}
