//! `towpath chain test`: a line for each hop, with what it took to get there, or why it was not reached.

use std::ffi::OsString;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{CONNECT_TIMEOUT, Way, key_file, via};
use crate::chain::{Error, Place, Report, Step, test};
use crate::cli::exit::{FAILED, Failure};
use crate::cli::flags::{Command, Environment, Flag, Group, HELP, Line, Usage};
use crate::cli::{Invocation, output};

/// What `chain test` is to do.
#[derive(Debug)]
pub(in crate::cli) struct Trial {
    way: Way,
    is_json: bool,
}

pub(super) fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let command = command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Invocation::Print(text)),
        Line::Values(values) => values,
    };
    Ok(Invocation::ChainTest(Trial {
        way: Way::of(&command, &values)?,
        is_json: values.is_on("json"),
    }))
}

impl Trial {
    /// Tries the chain once. A chain that is not good is a failure.
    pub(in crate::cli) fn run(&self) -> Result<(), Failure> {
        let failed = |error: &Error| {
            let line = format!("towpath chain test: {error}");
            Failure::new(FAILED, line)
        };
        let chain = self.way.build("chain test")?;
        let report = test(&chain.destination, &chain.hops, &chain.options);
        let report = report.map_err(|error| failed(&error))?;
        let text = match self.is_json {
            true => format!("{}\n", object(&report)),
            false => lines(&report),
        };
        output::print(text.as_bytes())?;
        report
            .failure
            .as_ref()
            .map_or(Ok(()), |error| Err(failed(error)))
    }
}

/// How one step did.
enum Verdict<'a> {
    Good,
    Failed(&'a Error),
    NotReached,
}

/// Every step in its order: its place, itself, and how it did.
fn verdicts(report: &Report) -> impl Iterator<Item = (Option<usize>, &Step, Verdict<'_>)> {
    let hops = report.hops.iter().enumerate();
    let hops = hops.map(|(at, step)| (Some(at + 1), step, step.header.is_some()));
    let destination = report.destination.iter();
    let destination = destination.map(|step| (None, step, step.connect.is_some()));
    hops.chain(destination).map(|(hop, step, is_good)| {
        let failure = report.failure.as_ref().filter(|error| match &error.place {
            Place::Hop { index, .. } => hop == Some(*index),
            Place::Destination(_) => hop.is_none(),
            Place::Chain => false,
        });
        let verdict = match (failure, is_good) {
            (Some(error), _) => Verdict::Failed(error),
            (None, true) => Verdict::Good,
            (None, false) => Verdict::NotReached,
        };
        (hop, step, verdict)
    })
}

/// `hop 1 127.0.0.1:7300 connect 0.3ms header 0.5ms ok`
fn lines(report: &Report) -> String {
    let mut text = String::new();
    for (hop, step, verdict) in verdicts(report) {
        match hop {
            Some(index) => text.push_str(&format!("hop {index} {}", step.address)),
            None => text.push_str(&format!("destination {}", step.address)),
        }
        for (name, time) in [("connect", step.connect), ("header", step.header)] {
            if let Some(time) = time {
                text.push_str(&format!(" {name} {:.1}ms", ms(time)));
            }
        }
        match verdict {
            Verdict::Good => text.push_str(" ok\n"),
            Verdict::Failed(error) => text.push_str(&format!(" {}\n", error.reason)),
            Verdict::NotReached => text.push_str(" not reached\n"),
        }
    }
    text
}

/// The same as one object. Times are in milliseconds.
fn object(report: &Report) -> Value {
    let (mut hops, mut destination) = (Vec::new(), Value::Null);
    for (hop, step, verdict) in verdicts(report) {
        let mut fields = Map::new();
        if let Some(index) = hop {
            fields.insert("hop".to_owned(), json!(index));
        }
        fields.insert("address".to_owned(), json!(step.address));
        for (name, time) in [("connect_ms", step.connect), ("header_ms", step.header)] {
            if let Some(time) = time {
                fields.insert(name.to_owned(), json!((ms(time) * 1000.0).round() / 1000.0));
            }
        }
        fields.insert("ok".to_owned(), json!(matches!(verdict, Verdict::Good)));
        match verdict {
            Verdict::Good => {}
            Verdict::Failed(error) => {
                fields.insert("error".to_owned(), json!(error.reason.to_string()));
                if let Some(code) = error.code() {
                    fields.insert("kind".to_owned(), json!(code.name()));
                }
            }
            Verdict::NotReached => {
                fields.insert("error".to_owned(), json!("not reached"));
            }
        }
        match hop {
            Some(_) => hops.push(Value::Object(fields)),
            None => destination = Value::Object(fields),
        }
    }
    json!({ "ok": report.failure.is_none(), "hops": hops, "destination": destination })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The face of `chain test`.
pub(in crate::cli) fn command() -> Command {
    let flags = vec![
        via(),
        key_file(),
        CONNECT_TIMEOUT,
        Flag::switch("json", "print one JSON object; times are in milliseconds"),
        HELP,
    ];
    Command {
        name: "chain test",
        usage: "DESTINATION --via HOP[,HOP...] --key-file FILE [FLAGS]",
        about: "Connects to a destination through proxy servers, hangs up, and prints a line for each \
                hop: how long connecting to it took whoever did, how long after the headers had left its \
                own came back, and ok or the reason why not.",
        groups: vec![Group {
            title: "Flags",
            flags,
        }],
        examples: &["towpath chain test db.internal:5432 --via fra.example --key-file fra.key"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Code, Reason};

    fn report() -> Report {
        let time = |micros| Some(Duration::from_micros(micros));
        let step = |address: &str, connect, header| Step {
            address: address.to_owned(),
            connect,
            header,
        };
        let (code, is_last) = (Code::Refused, true);
        Report {
            hops: vec![
                step("a", time(340), Some(Duration::from_nanos(520_789))),
                step("b:7301", time(2000), None),
            ],
            destination: Some(step("db:1", None, None)),
            failure: Some(Error {
                place: Place::Hop {
                    index: 2,
                    address: "b:7301".to_owned(),
                },
                reason: Reason::Said { code, is_last },
            }),
        }
    }

    #[test]
    fn each_hop_has_a_line() {
        assert_eq!(
            lines(&report()),
            "hop 1 a connect 0.3ms header 0.5ms ok\n\
             hop 2 b:7301 connect 2.0ms destination refused the connection\n\
             destination db:1 not reached\n"
        );
        let object = object(&report());
        assert_eq!(object["ok"], json!(false));
        assert_eq!(object["hops"][0]["ok"], json!(true));
        assert_eq!(object["hops"][0]["connect_ms"], json!(0.34));
        assert_eq!(object["hops"][0]["header_ms"], json!(0.521));
        assert_eq!(object["hops"][1]["kind"], json!("refused"));
        assert_eq!(object["destination"]["error"], json!("not reached"));
    }
}
