//! Samples of a rate, and what is said of them.

/// Samples of one contender in one cell.
#[derive(Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Takes in a sample.
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// Multiplies every sample.
    pub fn scale(&mut self, factor: f64) {
        self.0.iter_mut().for_each(|sample| *sample *= factor);
    }

    /// The value that `part` (0 to 1) of the samples stay below; 0 without any.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((part * last as f64).round() as usize).copied().unwrap_or(0.0)
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let mut samples = Samples::default();
        assert_eq!(samples.median(), 0.0);
        for sample in [5.0, 1.0, 3.0, 2.0, 4.0] {
            samples.push(sample);
        }
        assert_eq!((samples.quantile(0.0), samples.median(), samples.quantile(1.0)), (1.0, 3.0, 5.0));
        samples.scale(2.0);
        assert_eq!(samples.median(), 6.0);
    }
}
