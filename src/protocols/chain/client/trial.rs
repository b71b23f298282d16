//! Trying a chain: how far it reaches, and how long each step takes.

use std::time::{Duration, Instant};

use super::super::wire::Response;
use super::dial::after;
use super::plan::Plan;
use super::responses::{Observer, open};
use super::{Error, Hop, Options};

/// How a chain did.
#[derive(Debug)]
pub struct Report {
    /// The hops in their order.
    pub hops: Vec<Step>,
    /// The destination; none for a probe.
    pub destination: Option<Step>,
    /// Why the chain is not good, if it is not.
    pub failure: Option<Error>,
}

/// One step of a chain: a hop, or the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The address as the caller wrote it.
    pub address: String,
    /// How long connecting to it took whoever did: the client for the first step, and the hop before it,
    /// by its own clock in whole milliseconds, for the others. None if it was not reached.
    pub connect: Option<Duration>,
    /// How long after the headers had left its own header arrived. A destination has none.
    pub header: Option<Duration>,
}

/// Connects to the destination through the hops, and hangs up.
///
/// What the chain does is told in the report; an error is about what cannot be tried.
pub fn test(destination: &str, hops: &[Hop], options: &Options) -> Result<Report, Error> {
    run(&Plan::new(Some(destination), hops, options)?, options)
}

/// Connects to the last hop, which answers without connecting to anybody.
pub fn probe(hops: &[Hop], options: &Options) -> Result<Report, Error> {
    run(&Plan::new(None, hops, options)?, options)
}

fn run(plan: &Plan, options: &Options) -> Result<Report, Error> {
    let step = |address| Step {
        address,
        ..Step::default()
    };
    let (hops, destination) = plan.written();
    let count = hops.len();
    let mut trial = Trial {
        began: Instant::now(),
        steps: hops.into_iter().chain(destination).map(step).collect(),
    };
    let deadline = after(trial.began, options.handshake_timeout);
    let failure = open(plan, options, &[], deadline, &mut trial).err();
    let mut hops = trial.steps;
    let destination = hops.split_off(count).pop();
    Ok(Report {
        hops,
        destination,
        failure,
    })
}

struct Trial {
    /// The beginning, then when the headers leave.
    began: Instant,
    steps: Vec<Step>,
}

impl Observer for Trial {
    fn connected(&mut self) {
        if let Some(first) = self.steps.first_mut() {
            first.connect = Some(self.began.elapsed());
        }
        self.began = Instant::now();
    }

    fn answered(&mut self, index: usize, response: &Response) {
        if let Some(step) = self.steps.get_mut(index) {
            step.header = Some(self.began.elapsed());
        }
        if let Some(next) = self.steps.get_mut(index + 1) {
            next.connect = Some(Duration::from_millis(response.dial.into()));
        }
    }
}
