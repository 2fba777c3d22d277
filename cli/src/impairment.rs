//! `--impair`, and what is said of it at the end.

use minicache::rings::impair::{Impairment, LinkCounts};

/// What has happened in a direction of a bad wire, in a line. `None` where nothing could go wrong.
pub fn summary(direction: &str, impairment: &Impairment, counts: &LinkCounts) -> Option<String> {
    if impairment.is_none() {
        return None;
    }
    let kinds = [
        (counts.lost, "lost"),
        (counts.tail_dropped, "lost to a full queue"),
        (counts.duplicated, "duplicated"),
        (counts.corrupted, "corrupted"),
        (counts.reordered, "held back"),
        (counts.cleared, "on their way when the interface went down"),
    ];
    let happened: Vec<String> =
        kinds.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
    let happened = if happened.is_empty() { "none lost".to_owned() } else { happened.join(", ") };
    Some(format!("{direction}, with {impairment}: {} frames sent, {happened}", counts.sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_what_happened_and_nothing_else() {
        let loss = Impairment { loss: 0.01, ..Impairment::NONE };
        let counts = LinkCounts { sent: 100, lost: 2, reordered: 1, ..LinkCounts::default() };
        let text = summary("to a", &loss, &counts).unwrap();
        assert_eq!(text, "to a, with loss=1%: 100 frames sent, 2 lost, 1 held back");
        let text = summary("to a", &loss, &LinkCounts::default()).unwrap();
        assert_eq!(text, "to a, with loss=1%: 0 frames sent, none lost");
        assert_eq!(summary("to a", &Impairment::NONE, &counts), None);
    }
}
