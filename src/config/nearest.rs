//! Which known name a mistyped one was meant to be. Pure text; the keys of the file, the flags and
//! the commands all ask here.

/// The known name with the smallest edit distance to `name`, the earlier one of two; none where no
/// name is so near that it may have been meant: by two slips, or by one in three letters, and with
/// a letter left that is right.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    let measured = known
        .into_iter()
        .map(|known| (distance(name, known), known));
    let near = measured.filter(|(slips, known)| {
        *slips <= (length / 3).max(2) && *slips < length.max(known.chars().count())
    });
    near.min_by_key(|(slips, _)| *slips).map(|(_, known)| known)
}

/// How many letters must be put in, left out, changed, or swapped with their neighbour to turn
/// one word into the other.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().take(LONGEST).collect();
    let to: Vec<char> = to.chars().take(LONGEST).collect();
    // Three rows of the usual table: the row before last is what a swap looks back at.
    let mut before_last = vec![0; to.len() + 1];
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, &a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &b) in to.iter().enumerate() {
            let change = last[j] + usize::from(a != b);
            let mut best = change.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a == to[j - 1] && from[i - 1] == b {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = last;
        last = row;
    }
    last[to.len()]
}

/// Letters beyond this one do not count, so that a hostile name costs a bounded time.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_each_kind_of_slip_once() {
        for (from, to, want) in [
            ("workers", "workers", 0),
            ("worker", "workers", 1),
            ("wworkers", "workers", 1),
            ("workars", "workers", 1),
            ("wrokers", "workers", 1),
            ("", "pin", 3),
            ("pin", "", 3),
            ("store", "pin", 5),
        ] {
            assert_eq!(distance(from, to), want, "{from} {to}");
        }
    }

    #[test]
    fn the_nearest_is_found_and_the_earlier_wins_a_tie() {
        assert_eq!(nearest("lisen", ["token", "listen"]), Some("listen"));
        assert_eq!(nearest("ac", ["ab", "ad"]), Some("ab"));
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn what_is_not_near_is_no_hint() {
        for (name, known) in [
            ("lots", "off"),
            ("x", "h"),
            ("xy", "ab"),
            ("node", "routes"),
            ("verbose", "error"),
        ] {
            assert_eq!(nearest(name, [known]), None, "{name}");
        }
        for (name, known) in [
            ("h", "hi"),
            ("configuraton", "configuration"),
            ("of", "off"),
        ] {
            assert_eq!(nearest(name, [known]), Some(known), "{name}");
        }
    }
}
