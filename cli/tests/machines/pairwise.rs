//! Covering sets: few combinations in which every two values of different factors that can meet do meet.

use std::collections::BTreeSet;

/// A combination: for each factor the number of its value.
pub type Row = Vec<usize>;

/// Two values: factor and value of the one, factor and value of the other; the lower factor first.
type Pair = (usize, usize, usize, usize);

/// Makes rows for factors with so many values each. The rows begin with `given`, whose `None`s are chosen; `is_valid` says
/// whether a combination can exist, `None` standing for any value. It must hold for two values if it holds for a row with both.
pub fn cover(sizes: &[usize], given: &[Vec<Option<usize>>], is_valid: impl Fn(&[Option<usize>]) -> bool) -> Vec<Row> {
    let mut missing = pairs(sizes, &is_valid);
    let mut rows = Vec::new();
    let mut take = |partial: &[Option<usize>], missing: &mut BTreeSet<Pair>| {
        let row = best(sizes, partial, missing, &is_valid);
        for pair in pairs_of(&row) {
            missing.remove(&pair);
        }
        rows.push(row);
    };
    for partial in given {
        take(partial, &mut missing);
    }
    while let Some(&(f, v, g, w)) = missing.first() {
        let mut partial = vec![None; sizes.len()];
        (partial[f], partial[g]) = (Some(v), Some(w));
        take(&partial, &mut missing);
    }
    rows
}

/// Every pair that can exist.
fn pairs(sizes: &[usize], is_valid: &impl Fn(&[Option<usize>]) -> bool) -> BTreeSet<Pair> {
    let mut pairs = BTreeSet::new();
    for (f, g) in (0..sizes.len()).flat_map(|f| (f + 1..sizes.len()).map(move |g| (f, g))) {
        for (v, w) in (0..sizes[f]).flat_map(|v| (0..sizes[g]).map(move |w| (v, w))) {
            let mut partial = vec![None; sizes.len()];
            (partial[f], partial[g]) = (Some(v), Some(w));
            if is_valid(&partial) {
                pairs.insert((f, v, g, w));
            }
        }
    }
    pairs
}

fn pairs_of(row: &[usize]) -> impl Iterator<Item = Pair> + '_ {
    (0..row.len()).flat_map(move |f| (f + 1..row.len()).map(move |g| (f, row[f], g, row[g])))
}

/// Completes a row factor by factor, each time by the value that covers most of what is missing; of several orders of the factors
/// the best is kept.
fn best(
    sizes: &[usize],
    partial: &[Option<usize>],
    missing: &BTreeSet<Pair>,
    is_valid: &impl Fn(&[Option<usize>]) -> bool,
) -> Row {
    let complete = |first: usize| {
        let mut row = partial.to_vec();
        for factor in (0..sizes.len()).map(|step| (first + step) % sizes.len()) {
            if row[factor].is_some() {
                continue;
            }
            let gain = |value: usize| {
                let mut tried = row.clone();
                tried[factor] = Some(value);
                is_valid(&tried).then(|| {
                    let others = (0..sizes.len()).filter(|other| *other != factor);
                    others
                        .filter(|other| {
                            tried[*other].is_some_and(|there| {
                                let (f, v, g, w) = (factor, value, *other, there);
                                missing.contains(&if f < g { (f, v, g, w) } else { (g, w, f, v) })
                            })
                        })
                        .count()
                })
            };
            // The first of the best, so that the set is the same every time.
            let chosen =
                (0..sizes[factor]).rev().filter_map(|value| Some((gain(value)?, value))).max_by_key(|(gain, _)| *gain);
            row[factor] = Some(chosen.expect("some value is valid").1);
        }
        row.into_iter().flatten().collect::<Row>()
    };
    let rows = (0..sizes.len()).rev().map(complete);
    rows.max_by_key(|row| pairs_of(row).filter(|pair| missing.contains(pair)).count()).expect("there are factors")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_that_can_exist_is_covered_and_no_other() {
        let sizes = [3, 2, 4, 2, 2];
        // Value 0 of the first factor wants value 1 of the second.
        let is_valid = |row: &[Option<usize>]| row[0] != Some(0) || row[1] != Some(0);
        let given = [vec![Some(2), None, Some(3), None, None]];
        let rows = cover(&sizes, &given, is_valid);
        assert_eq!((rows[0][0], rows[0][2]), (2, 3));
        let met = |f: usize, v: usize, g: usize, w: usize| rows.iter().any(|row| row[f] == v && row[g] == w);
        for f in 0..sizes.len() {
            for g in f + 1..sizes.len() {
                for (v, w) in (0..sizes[f]).flat_map(|v| (0..sizes[g]).map(move |w| (v, w))) {
                    let impossible = (f, v, g, w) == (0, 0, 1, 0);
                    assert_eq!(met(f, v, g, w), !impossible, "{f}={v} {g}={w}");
                }
            }
        }
        assert!(rows.len() <= 18, "twelve would be the least: {}", rows.len());
        assert_eq!(rows, cover(&sizes, &given, is_valid), "it is the same every time");
    }
}
