//! Numbers, and tables of them as Markdown.

use std::fmt;

/// Values of one kind, sorted.
#[derive(Debug, Default)]
pub(super) struct Series(Vec<u64>);

impl FromIterator<u64> for Series {
    fn from_iter<I: IntoIterator<Item = u64>>(values: I) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable();
        Self(values)
    }
}

impl Series {
    /// The smallest value that so many percent are not above; 0 of nothing.
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0) as f64
    }

    /// 0 of nothing.
    pub(super) fn mean(&self) -> f64 {
        self.0.iter().sum::<u64>() as f64 / self.0.len().max(1) as f64
    }
}

/// A table under construction.
pub(super) struct Table(String);

impl Table {
    pub(super) fn new(columns: &[&str]) -> Self {
        let rule = "|---".repeat(columns.len());
        Self(format!("| {} |\n{rule}|\n", columns.join(" | ")))
    }

    pub(super) fn row(&mut self, name: &str, cells: &[String]) {
        self.0 += &format!("| {name} | {} |\n", cells.join(" | "));
    }
}

impl fmt::Display for Table {
    /// With an empty line after it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_there() {
        let series: Series = (1..=100).rev().collect();
        assert_eq!((series.percentile(50), series.percentile(95)), (50.0, 95.0));
        assert_eq!(series.mean(), 50.5);
        let one: Series = [7].into_iter().collect();
        assert_eq!((one.percentile(50), one.percentile(95), one.mean()), (7.0, 7.0, 7.0));
        let none = Series::default();
        assert_eq!((none.percentile(95), none.mean()), (0.0, 0.0));
    }
}
