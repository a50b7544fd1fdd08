//! Metric families as OpenMetrics text, for scrapers that ask for it.
//!
//! It differs from Prometheus's own format where a parser stops: a counter's family lacks the `_total` of its samples,
//! and the text has an end that tells a scraper that nothing was cut off.

use std::fmt::{self, Write as _};

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// The type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether a scraper that sends this `Accept` header prefers OpenMetrics: Prometheus gives it a higher quality than
/// its own format.
pub(crate) fn is_preferred(accept: &str) -> bool {
    let quality = |wanted: &dyn Fn(&str) -> bool| -> Option<f32> {
        let offers = accept.split(',').filter_map(|offer| {
            let mut words = offer.split(';').map(str::trim);
            let kind = words.next().filter(|kind| wanted(kind))?;
            let has_version = words.clone().find_map(|word| word.strip_prefix("version="));
            let is_known = kind.starts_with("text/") || has_version.is_none_or(|it| it == "1.0.0");
            let quality = words.find_map(|word| word.strip_prefix("q="));
            is_known.then(|| quality.map_or(Ok(1.0), str::parse).unwrap_or(0.0))
        });
        offers.reduce(f32::max)
    };
    let open = quality(&|kind| kind == "application/openmetrics-text");
    let plain = quality(&|kind| kind == "text/plain");
    open.is_some_and(|open| open > 0.0 && plain.is_none_or(|plain| open >= plain))
}

/// All families as one text.
pub(crate) fn encode(families: &[MetricFamily]) -> String {
    let mut text = String::new();
    for family in families {
        // Writing to a string can't fail.
        let _ = write_family(&mut text, family);
    }
    text.push_str("# EOF\n");
    text
}

fn write_family(text: &mut String, family: &MetricFamily) -> fmt::Result {
    let (kind, sample_suffix) = match family.get_field_type() {
        MetricType::COUNTER => ("counter", "_total"),
        MetricType::HISTOGRAM => ("histogram", ""),
        MetricType::SUMMARY | MetricType::GAUGE | MetricType::UNTYPED => ("gauge", ""),
    };
    let name = family.name();
    let name = name.strip_suffix(sample_suffix).unwrap_or(name);
    writeln!(text, "# HELP {name} {}", Escaped(family.help()))?;
    writeln!(text, "# TYPE {name} {kind}")?;
    for metric in family.get_metric() {
        write_metric(text, name, family.get_field_type(), metric)?;
    }
    Ok(())
}

fn write_metric(text: &mut String, name: &str, kind: MetricType, metric: &Metric) -> fmt::Result {
    let labels = metric.get_label();
    match kind {
        MetricType::COUNTER => {
            sample(text, name, "_total", labels, None, metric.get_counter().get_value())
        }
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            for bucket in histogram.get_bucket() {
                let bound = Some(bucket.upper_bound()).filter(|bound| bound.is_finite());
                let Some(bound) = bound else { continue };
                let count = bucket.cumulative_count() as f64;
                sample(text, name, "_bucket", labels, Some(&format!("{bound:?}")), count)?;
            }
            let count = histogram.get_sample_count() as f64;
            sample(text, name, "_bucket", labels, Some("+Inf"), count)?;
            sample(text, name, "_sum", labels, None, histogram.get_sample_sum())?;
            sample(text, name, "_count", labels, None, count)
        }
        _ => sample(text, name, "", labels, None, metric.get_gauge().get_value()),
    }
}

/// A line. `bound` is the label of a histogram's bucket.
fn sample(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: &[LabelPair],
    bound: Option<&str>,
    value: f64,
) -> fmt::Result {
    write!(text, "{name}{suffix}")?;
    let pairs = labels.iter().map(|label| (label.name(), label.value()));
    let mut separator = '{';
    for (name, value) in pairs.chain(bound.map(|bound| ("le", bound))) {
        write!(text, "{separator}{name}=\"{}\"", Escaped(value))?;
        separator = ',';
    }
    if separator == ',' {
        text.push('}');
    }
    writeln!(text, " {value}")
}

/// Text of a help line or a label.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '"' => f.write_str("\\\"")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus::core::Collector as _;
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts};

    use super::*;

    #[test]
    fn scrapers_get_what_they_prefer() {
        let check = |accept: &str, expected| assert_eq!(is_preferred(accept), expected, "{accept}");
        // Prometheus 2 and 3.
        check(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            true,
        );
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.2",
            true,
        );
        check(
            "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.1",
            false,
        );
        check("application/openmetrics-text;version=0.0.1", false);
        check("application/openmetrics-text;q=0", false);
        check("application/openmetrics-text;q=nonsense", false);
        for accept in ["", "*/*", "text/html", "text/plain"] {
            check(accept, false);
        }
    }

    #[test]
    fn every_kind_is_written() {
        let calls =
            IntCounterVec::new(Opts::new("calls_total", "Calls\n\"all\"."), &["of"]).unwrap();
        calls.with_label_values(&["a\"\\\n"]).inc_by(3);
        let gauge = IntGauge::new("free_bytes", "Free.").unwrap();
        gauge.set(-5);
        let opts = HistogramOpts::new("time_seconds", "Time.").buckets(vec![0.5, 1.0]);
        let time = HistogramVec::new(opts, &["stage"]).unwrap();
        time.with_label_values(&["run"]).observe(0.75);
        let families = [calls.collect(), gauge.collect(), time.collect()].concat();
        let expected = r##"# HELP calls Calls\n\"all\".
# TYPE calls counter
calls_total{of="a\"\\\n"} 3
# HELP free_bytes Free.
# TYPE free_bytes gauge
free_bytes -5
# HELP time_seconds Time.
# TYPE time_seconds histogram
time_seconds_bucket{stage="run",le="0.5"} 0
time_seconds_bucket{stage="run",le="1.0"} 1
time_seconds_bucket{stage="run",le="+Inf"} 1
time_seconds_sum{stage="run"} 0.75
time_seconds_count{stage="run"} 1
# EOF
"##;
        assert_eq!(encode(&families), expected);
    }
}
