//! What changes the configuration in force: reloads, and routes that are set by hand. The house does it
//! on a thread of its own and answers by letter.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::desk::{Desk, Inquiry, Outcome, Waiting};
use super::request::Request;
use super::response::{Refusal, Response};
use super::{NotReloaded, Wish, status};
use crate::session::RouteRow;

impl Desk {
    /// Asks the house.
    pub(super) fn wish(&mut self, wish: Wish, now: Instant) -> Outcome {
        let ticket = self.ticket();
        let house = self.house.clone();
        let answer = Box::new(move |answer| {
            // There is room for as many as there are clients.
            let _ = house.post((ticket, answer));
        });
        self.grounds.reload.ask(wish, answer);
        Outcome::Later(Waiting {
            ticket,
            until: now + PATIENCE,
            inquiry: Inquiry::House,
        })
    }

    /// Reads, sets or removes routes.
    pub(super) fn routes(
        &mut self,
        request: &Request,
        name: Option<String>,
        now: Instant,
    ) -> Result<Outcome, Refusal> {
        match (request.method.as_str(), name) {
            ("PUT", Some(name)) => {
                let body = serde_json::from_slice(&request.body);
                let body = body.map_err(|error| {
                    Refusal::bad(format!("the body is no JSON: {error}; write {ROUTE}"))
                })?;
                Ok(self.wish(Wish::SetRoute(name, body), now))
            }
            ("DELETE", Some(name)) => Ok(self.wish(Wish::RemoveRoute(name), now)),
            (_, name) => self.tell_routes(name.as_deref()).map(Outcome::Now),
        }
    }

    fn tell_routes(&self, name: Option<&str>) -> Result<Response, Refusal> {
        let shown = self.grounds.panel.shown();
        let routes = shown.routes.iter();
        let chosen: Vec<&RouteRow> = routes
            .filter(|route| name.is_none_or(|name| name == route.name))
            .collect();
        match name {
            Some(_) if chosen.is_empty() => Err(Refusal::new(404, "no route has this name")),
            _ => Ok(Response::json(&status::routes(&chosen))),
        }
    }
}

/// What a client is told of the house's answer.
pub(super) fn response(answer: Result<Value, NotReloaded>) -> Response {
    match answer {
        Ok(done) => Response::json(&done),
        Err(NotReloaded::Unavailable) => Refusal::new(501, "reload is not available").into(),
        Err(NotReloaded::Mistakes(mistakes)) => {
            let error = "the configuration has mistakes; the old one serves on";
            let body = json!({ "error": error, "mistakes": mistakes });
            Response::json(&body).status(422)
        }
        Err(NotReloaded::Failed(why)) => Refusal::new(409, why).into(),
        Err(NotReloaded::Unknown) => Refusal::new(404, "no route has this name").into(),
        Err(NotReloaded::Malformed(mistakes)) => {
            let error = format!("the route has mistakes; write {ROUTE}");
            let body = json!({ "error": error, "mistakes": mistakes });
            Response::json(&body).status(400)
        }
    }
}

/// The house has not answered in time.
pub(super) fn unanswered() -> Response {
    let why = "it is being done still; the log will tell what came of it";
    Refusal::new(504, why).into()
}

/// What a route looks like.
const ROUTE: &str =
    r#"{"token": "...", "hosts": {"default": {"host": "example.com", "service": "http"}}}"#;

/// How long the house is waited for: less than a client of the command line waits.
const PATIENCE: Duration = Duration::from_secs(4);
