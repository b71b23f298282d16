//! The sessions that `towpath top` shows: fetched page by page, with their rates since the last time,
//! sorted, and put into columns.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::http::Line;
use super::status::{bytes, cut, text, time};
use super::top::Sort;
use crate::cli::exit::Failure;

/// One session.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: String,
    role: String,
    peer: String,
    pub(super) about: String,
    age: f64,
    moved: [u64; 2],
    /// Bytes a second each way; none until it has been seen twice.
    rate: Option<[f64; 2]>,
}

/// All of them at one time.
pub(super) struct Sample {
    at: Instant,
    pub(super) rows: Vec<Row>,
    /// There were more than are looked at.
    pub(super) cut: bool,
}

impl Sample {
    /// Sessions of which nothing but the name is known.
    #[cfg(test)]
    pub(super) fn for_tests(ids: &[&str]) -> Sample {
        Sample {
            at: Instant::now(),
            rows: ids.iter().map(|id| Row::of(&json!({ "id": id }))).collect(),
            cut: false,
        }
    }

    /// Asks a server for its sessions; `before` tells how they have moved.
    pub(super) fn take(server: &Line, before: Option<&Sample>) -> Result<Sample, Failure> {
        let mut rows = Vec::new();
        let mut after = String::new();
        let mut cut = true;
        for _ in 0..PAGES {
            let path = format!("/sessions?limit=1000{after}");
            let page = server.ask("top", "GET", &path)?;
            let sessions = page["sessions"].as_array();
            rows.extend(sessions.into_iter().flatten().map(Row::of));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => {
                    cut = false;
                    break;
                }
            }
        }
        let mut sample = Sample {
            at: Instant::now(),
            rows,
            cut,
        };
        if let Some(before) = before {
            sample.rate(before);
        }
        Ok(sample)
    }

    fn rate(&mut self, before: &Sample) {
        let passed = self.at.saturating_duration_since(before.at).as_secs_f64();
        let old: HashMap<_, _> = before.rows.iter().map(|row| (&row.id, row.moved)).collect();
        for row in &mut self.rows {
            // One that has come meanwhile has moved all that it has in this time.
            let old = old.get(&row.id).copied().unwrap_or_default();
            let way = |way: usize| row.moved[way].saturating_sub(old[way]) as f64;
            row.rate = (passed > 0.0).then(|| [way(0) / passed, way(1) / passed]);
        }
    }

    /// Puts first what is asked for.
    pub(super) fn sort(&mut self, by: Sort) {
        let rate = |row: &Row| row.rate.map_or(0.0, |[up, down]| up + down);
        self.rows.sort_by(|a, b| match by {
            Sort::Rate => rate(b).total_cmp(&rate(a)),
            Sort::Bytes => (b.moved[0] + b.moved[1]).cmp(&(a.moved[0] + a.moved[1])),
            Sort::Age => b.age.total_cmp(&a.age),
        });
    }

    /// As JSON, in the order of the sort.
    pub(super) fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "id": row.id,
                "role": row.role,
                "peer": row.peer,
                "about": row.about,
                "age_seconds": row.age,
                "bytes_up": row.moved[0],
                "bytes_down": row.moved[1],
                "rate_up": row.rate.map(|rate| rate[0].round()),
                "rate_down": row.rate.map(|rate| rate[1].round()),
            })
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        json!({ "sessions": rows, "cut": self.cut })
    }
}

impl Row {
    fn of(value: &Value) -> Row {
        let moved = |key: &str| value[key].as_u64().unwrap_or(0);
        Row {
            id: text(&value["id"]),
            role: text(&value["role"]),
            peer: text(&value["peer"]),
            about: text(&value["about"]),
            age: value["age_seconds"].as_f64().unwrap_or(0.0),
            moved: [moved("bytes_up"), moved("bytes_down")],
            rate: None,
        }
    }

    /// In the columns of [`HEAD`], in a line of at most `width`.
    pub(super) fn line(&self, width: usize) -> String {
        let [up, down] = match self.rate {
            Some(rate) => rate.map(bytes),
            None => ["-".to_owned(), "-".to_owned()],
        };
        let sum = bytes((self.moved[0] + self.moved[1]) as f64);
        let (id, role, peer) = (cut(&self.id, 11), cut(&self.role, 9), cut(&self.peer, 21));
        let age = time(self.age);
        let line = format!(
            "{id:<11} {role:<9} {peer:<21} {age:>6} {up:>6} {down:>6} {sum:>6} {}",
            self.about
        );
        cut(line.trim_end(), width)
    }
}

/// The heading of the columns.
pub(super) const HEAD: &str =
    "ID          ROLE      PEER                     AGE   UP/S DOWN/S  BYTES ABOUT";

/// Pages of a thousand sessions that are looked at.
const PAGES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, age: f64, moved: [u64; 2]) -> Value {
        json!({
            "id": id, "role": "gateway-clients", "peer": "[ffff:ffff::1]:65535", "about": "service=x",
            "age_seconds": age, "bytes_up": moved[0], "bytes_down": moved[1],
        })
    }

    #[test]
    fn rows_are_sorted_and_fit_a_terminal() {
        let sample = |moved: [u64; 2], at| Sample {
            at,
            rows: [
                row("w0#1.1", 5.0, [90, 0]),
                row("w255#65535.4294967295", 2.0, moved),
            ]
            .iter()
            .map(Row::of)
            .collect(),
            cut: false,
        };
        let now = Instant::now();
        let before = sample([0, 0], now);
        let mut after = sample([20, 20], now + std::time::Duration::from_secs(2));
        after.rate(&before);
        let first = |sample: &mut Sample, by| {
            sample.sort(by);
            sample.rows[0].id.clone()
        };
        assert_eq!(first(&mut after, Sort::Age), "w0#1.1");
        assert_eq!(first(&mut after, Sort::Rate), "w255#65535.4294967295");
        assert_eq!(first(&mut after, Sort::Bytes), "w0#1.1");
        assert_eq!(after.rows[1].rate, Some([10.0, 10.0]));
        for row in &after.rows {
            assert!(row.line(80).chars().count() <= 80, "{}", row.line(80));
        }
        let at = HEAD.find("PEER").unwrap();
        assert!(after.rows[0].line(80)[at..].starts_with("[ffff"));
    }
}
