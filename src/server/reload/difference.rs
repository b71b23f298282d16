//! What is different between the configuration in force and another: pure, it opens and asks nothing.
//!
//! Listeners are compared by where they are, routes by name and field, keys by what they were given, and
//! roles as wholes, which finds what has no words: secrets.

use serde_json::{Value, json};

use crate::config::{self, Core, Key, Limits, Told};
use crate::session::{Listen, Role, RouteRow};
use crate::worker::Leaving;

/// A listener in force.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// As the configuration names it.
    pub(super) asked: Listen,
    /// With the port that was bound.
    pub(super) bound: Listen,
}

/// A role in force.
pub(super) struct Occupant {
    pub(super) role: Box<dyn Role>,
    /// Its keys.
    pub(super) keys: &'static [Key],
    /// What its table is called.
    pub(super) name: &'static str,
    /// Its number among the services, since it was on for the first time.
    pub(super) service: Option<usize>,
    /// In the order of its [`Role::listen`].
    pub(super) places: Vec<Place>,
}

/// The configuration in force.
pub(super) struct InForce {
    pub(super) core: Core,
    pub(super) roles: Vec<Occupant>,
    pub(super) told: Vec<Told>,
}

/// What would have to happen.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// By the number of the role.
    pub(super) roles: Vec<RoleChange>,
    /// What changes.
    pub(super) items: Vec<Item>,
    /// What would, but not while the server runs, in words.
    pub(super) held: Vec<String>,
    /// Who leaves.
    pub(super) leaving: Leaving,
}

/// What would happen to one role.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RoleChange {
    /// It stays as it is, whatever the other configuration says.
    pub(super) is_held: bool,
    /// Something of it is different.
    pub(super) is_changed: bool,
    /// The new number of each of its listeners; none for one that closes.
    pub(super) stays: Vec<Option<usize>>,
    /// The numbers of listeners that open.
    pub(super) opens: Vec<usize>,
}

/// One thing that changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) what: &'static str,
    pub(super) change: &'static str,
    pub(super) text: String,
    /// Where in [`Leaving`] those stand who leave for it: listeners first, then routes.
    pub(super) leaves: Option<Leaves>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    Listener(usize),
    Route(usize),
}

impl RoleChange {
    /// True when a listener opens or closes, or has another number.
    pub(super) fn moves(&self) -> bool {
        let mut numbers = self.stays.iter().enumerate();
        !self.opens.is_empty() || numbers.any(|(old, new)| *new != Some(old))
    }
}

impl Difference {
    /// True when the two are the same.
    pub(super) fn is_none(&self) -> bool {
        self.items.is_empty() && self.held.is_empty()
    }

    /// As the client is told; `counts` as [`Leaving`] is ordered.
    pub(super) fn tell(&self, dry_run: bool, counts: &[usize]) -> Value {
        let listeners = self.leaving.listeners.len();
        let count = |leaves: Leaves| match leaves {
            Leaves::Listener(at) => counts.get(at),
            Leaves::Route(at) => counts.get(listeners + at),
        };
        let tell = |item: &Item| {
            let mut told = json!({
                "what": item.what,
                "change": item.change,
                "text": item.text,
            });
            if let Some(leaves) = item.leaves {
                told["connections"] = count(leaves).copied().unwrap_or(0).into();
            }
            told
        };
        json!({
            "dry_run": dry_run,
            "changes": self.items.iter().map(tell).collect::<Vec<_>>(),
            "needs_restart": self.held,
            "connections_affected": counts.iter().sum::<usize>(),
        })
    }
}

/// Compares. `may_begin` says why a role that is on in the other configuration cannot be in this
/// process.
pub(super) fn compare(
    force: &InForce,
    core: &Core,
    roles: &[&dyn Role],
    told: &[Told],
    may_begin: &dyn Fn(&dyn Role) -> Result<(), &'static str>,
) -> Difference {
    let mut difference = Difference::default();
    for (former, role) in force.roles.iter().zip(roles) {
        let mut change = RoleChange::default();
        if let Err(why) = may_begin(*role) {
            change.is_held = true;
            change.stays = (0..former.places.len()).map(Some).collect();
            let name = former.name;
            difference
                .held
                .push(format!("{name}: {why} needs a restart"));
        } else {
            compare_listeners(former, *role, &mut change, &mut difference);
            compare_routes(former, &role.routes(), &mut difference);
            change.is_changed = !former.role.is_like(*role);
        }
        difference.roles.push(change);
    }
    compare_keys(force, told, &mut difference);
    find_silent(force, core, &mut difference);
    difference
}

fn compare_listeners(
    former: &Occupant,
    role: &dyn Role,
    change: &mut RoleChange,
    difference: &mut Difference,
) {
    let listens = role.listen();
    change.stays = vec![None; former.places.len()];
    let items = &mut difference.items;
    let mut note = |change, listen: &Listen, leaves| {
        let (address, purpose) = (listen.address, listen.transport.purpose());
        items.push(Item {
            what: "listener",
            change,
            text: format!("listener {change}: {listen} on {address}{purpose}"),
            leaves,
        });
    };
    for (new, listen) in listens.iter().enumerate() {
        let mut free = former.places.iter().zip(&mut change.stays);
        let same = free.find(|(place, stays)| stays.is_none() && place.asked.is_place_of(listen));
        match same {
            Some((_, stays)) => {
                // What else is other about it is told by its keys.
                *stays = Some(new);
            }
            None => {
                change.opens.push(new);
                note("added", listen, None);
            }
        }
    }
    let closed = former.places.iter().enumerate();
    for (old, place) in closed.filter(|(old, _)| change.stays[*old].is_none()) {
        let leaves = former.service.map(|service| {
            difference.leaving.listeners.push((service, old));
            Leaves::Listener(difference.leaving.listeners.len() - 1)
        });
        note("removed", &place.bound, leaves);
    }
}

fn compare_routes(former: &Occupant, now: &[RouteRow], difference: &mut Difference) {
    let before = former.role.routes();
    let is_it =
        |one: &RouteRow, other: &RouteRow| (&one.name, &one.field) == (&other.name, &other.field);
    let called = |row: &RouteRow| config::plain(&format!("{} {}", row.name, row.field));
    let to = |row: &RouteRow| {
        let mut words = row.to.join(", ");
        if row.guarded.is_some() {
            words += " with a token";
        }
        for (key, value) in &row.settings {
            words += &format!(", {key} {value}");
        }
        words
    };
    let item = |change, words: String, leaves| Item {
        what: "route",
        change,
        text: format!("route {change}: {words}"),
        leaves,
    };
    for row in now {
        let old = before.iter().find(|old| is_it(old, row));
        difference.items.extend(match old {
            Some(old) if old == row => None,
            Some(old) => {
                let is_other =
                    old.guarded.is_some() && row.guarded.is_some() && old.guarded != row.guarded;
                let other = if is_other { ", another one" } else { "" };
                let words = format!("{}: {} -> {}{other}", called(row), to(old), to(row));
                Some(item("changed", words, None))
            }
            None => Some(item("added", format!("{}: {}", called(row), to(row)), None)),
        });
    }
    for row in &before {
        if now.iter().any(|new| is_it(new, row)) {
            continue;
        }
        let leaves = former.service.map(|service| {
            let route = (service, row.name.clone(), row.field.clone());
            difference.leaving.routes.push(route);
            Leaves::Route(difference.leaving.routes.len() - 1)
        });
        difference.items.push(item("removed", called(row), leaves));
    }
}

/// Keys by their words. Where listeners and routes go is told already, by name.
fn compare_keys(force: &InForce, told: &[Told], difference: &mut Difference) {
    let is_held = |path: &str| {
        let mut held = force.roles.iter().zip(&difference.roles);
        held.any(|(role, change)| change.is_held && role.keys.iter().any(|key| key.path == path))
    };
    let is_told = |path: &str| {
        let mut keys = force.roles.iter().flat_map(|role| role.keys);
        let key = keys.find(|key| key.path == path);
        key.is_some_and(|key| matches!(key.kind, config::Kind::Addresses | config::Kind::Tables))
    };
    let mut items = Vec::new();
    let mut held = Vec::new();
    // A named table that is new or gone is told by its listener, where it has one.
    let listens = |name: &str, items: &[Item]| {
        let name = format!(" {name} on ");
        let mut listeners = items.iter().filter(|item| item.what == "listener");
        listeners.any(|item| item.text.contains(&name))
    };
    for config::Change { key, words, whole } in config::changes(&force.told, told) {
        let is_listener_s = whole.is_some_and(|name| listens(&name, &difference.items));
        if is_held(key.path) || is_listener_s {
            continue;
        }
        if key.is_fixed {
            held.push(format!("{words} needs a restart"));
        } else if !is_told(key.path) {
            items.push(Item {
                what: "key",
                change: "changed",
                text: words,
                leaves: None,
            });
        }
    }
    difference.items.extend(items);
    difference.held.extend(held);
}

/// What differs without a word for it: the file that a secret is in says something else.
fn find_silent(force: &InForce, core: &Core, difference: &mut Difference) {
    let silent = |name: &str| Item {
        what: "secret",
        change: "changed",
        text: format!("{name}: a secret has changed"),
        leaves: None,
    };
    for (number, change) in difference.roles.iter().enumerate() {
        let role = &force.roles[number];
        let of_role = |words: &str| role.keys.iter().any(|key| words.starts_with(key.path));
        let mut told = difference.items.iter().map(|item| item.text.as_str());
        let mut told_held = difference.held.iter().map(String::as_str);
        let is_told = change.moves()
            || told.any(|text| of_role(text) || text.starts_with("route "))
            || told_held.any(of_role);
        if change.is_changed && !is_told {
            difference.items.push(silent(role.name));
        }
    }
    let is_told = |item: &Item| item.text.starts_with("admin.token");
    if core.admin.token != force.core.admin.token && !difference.items.iter().any(is_told) {
        difference.items.push(silent("admin"));
    }
}

/// The core of another configuration, as far as it can be in force now: fixed keys stay as they are,
/// and so does a token that an open address needs.
pub(super) fn live_core(force: &Core, other: &Core) -> (Core, Option<String>) {
    let limits = Limits {
        user_timeout: force.limits.user_timeout,
        max_buffer_memory: force.limits.max_buffer_memory,
        resolve_ttl: force.limits.resolve_ttl,
        resolve_timeout: force.limits.resolve_timeout,
        ..other.limits.clone()
    };
    let mut admin = force.admin.clone();
    let is_open = admin.listen.iter().any(|at| !at.ip().is_loopback());
    let keeps = is_open && other.admin.token.is_none();
    if !keeps {
        admin.token = other.admin.token.clone();
    }
    let kept = (keeps && admin.token.is_some()).then(|| {
        "admin.token: an address that is not loopback needs it; to go without needs a restart"
            .into()
    });
    let core = Core {
        limits,
        admin,
        ..force.clone()
    };
    (core, kept)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Kind, Secret, Settings};
    use crate::session::{Ground, Service, Transport, alike};

    /// A role of addresses, routes, and what has no words.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Fake {
        listen: Vec<Listen>,
        routes: Vec<RouteRow>,
        secret: u32,
        needs_more: bool,
    }

    impl Role for Fake {
        fn listen(&self) -> Vec<Listen> {
            self.listen.clone()
        }

        fn show(&self, _: &mut String) {}

        fn routes(&self) -> Vec<RouteRow> {
            self.routes.clone()
        }

        fn service(&self, _: &Ground) -> Arc<dyn Service> {
            unreachable!("nothing is begun")
        }

        fn is_like(&self, other: &dyn Role) -> bool {
            alike(self, other)
        }
    }

    const KEYS: &[Key] = &[
        Key::new("fake.time", Kind::Path, "5s", ""),
        Key::new("fake.ports", Kind::Path, "1", "").fixed(),
        Key::new("fake.listen", Kind::Addresses, "", ""),
    ];

    fn listen(port: u16, name: Option<&str>) -> Listen {
        Listen {
            role: "fake",
            name: name.map(Box::from),
            address: ([127, 0, 0, 1], port).into(),
            transport: Transport::Stream,
            terms: Arc::default(),
        }
    }

    fn row(name: &str, to: &str) -> RouteRow {
        RouteRow {
            role: "fake",
            name: name.into(),
            field: "x".into(),
            to: vec![to.into()],
            guarded: None,
            settings: Vec::new(),
        }
    }

    fn told(text: &str) -> Vec<Told> {
        let mut settings = Settings::new(&[KEYS]);
        settings.read_text("x".as_ref(), text);
        settings.told()
    }

    fn force(role: Fake) -> InForce {
        let places = role.listen.iter().enumerate().map(|(at, asked)| Place {
            asked: asked.clone(),
            bound: listen(1000 + at as u16, asked.name.as_deref()),
        });
        InForce {
            core: Core::read(&mut Settings::new(&[config::KEYS, config::ADMIN_KEYS])),
            roles: vec![Occupant {
                places: places.collect(),
                role: Box::new(role),
                keys: KEYS,
                name: "fake",
                service: Some(4),
            }],
            told: told(""),
        }
    }

    fn compared(force: &InForce, role: &Fake, text: &str) -> Difference {
        let may_begin = |role: &dyn Role| {
            let fake: Option<&Fake> = crate::session::same_role(role);
            match fake.is_some_and(|fake| fake.needs_more) {
                true => Err("more"),
                false => Ok(()),
            }
        };
        compare(force, &force.core, &[role], &told(text), &may_begin)
    }

    fn texts(difference: &Difference) -> Vec<&str> {
        difference
            .items
            .iter()
            .map(|item| item.text.as_str())
            .collect()
    }

    #[test]
    fn listeners_that_stay_are_found_wherever_they_stand() {
        let role = Fake {
            listen: vec![listen(0, None), listen(0, None), listen(7, Some("a"))],
            ..Fake::default()
        };
        let force = force(role.clone());
        assert!(compared(&force, &role, "").is_none());
        let other = Fake {
            listen: vec![listen(8, None), listen(7, Some("a")), listen(0, None)],
            ..role
        };
        let difference = compared(&force, &other, "");
        let change = &difference.roles[0];
        assert_eq!(change.stays, [Some(2), None, Some(1)]);
        assert_eq!(change.opens, [0]);
        assert!(change.moves() && change.is_changed);
        assert_eq!(difference.leaving.listeners, [(4, 1)]);
        let want = [
            "listener added: fake on 127.0.0.1:8",
            "listener removed: fake on 127.0.0.1:1001",
        ];
        assert_eq!(texts(&difference), want);
        let value = difference.tell(true, &[17]);
        assert_eq!(value["changes"][1]["connections"], 17);
        assert_eq!(value["connections_affected"], 17);
    }

    #[test]
    fn routes_differ_by_name_field_and_where_they_lead() {
        let role = Fake {
            listen: vec![listen(1, None)],
            routes: vec![row("a", "1"), row("b", "2"), row("c", "3")],
            ..Fake::default()
        };
        let force = force(role.clone());
        let other = Fake {
            routes: vec![row("c", "4"), row("a", "1"), row("d", "5")],
            ..role
        };
        let difference = compared(&force, &other, "");
        let want = [
            "route changed: c x: 3 -> 4",
            "route added: d x: 5",
            "route removed: b x",
        ];
        assert_eq!(texts(&difference), want);
        let gone = [(4, "b".to_owned(), "x".to_owned())];
        assert_eq!(difference.leaving.routes, gone);
        assert!(!difference.roles[0].moves());
    }

    #[test]
    fn keys_are_told_those_that_cannot_change_too_and_secrets_without_words() {
        let role = Fake {
            listen: vec![listen(1, None)],
            ..Fake::default()
        };
        let force = force(role.clone());
        let text = "[fake]\ntime = \"7s\"\nports = \"2\"\nlisten = [\"127.0.0.1:1\"]\n";
        let difference = compared(&force, &role, text);
        assert_eq!(texts(&difference), ["fake.time: 5s -> 7s"]);
        assert_eq!(difference.held, ["fake.ports: 1 -> 2 needs a restart"]);
        let other = Fake {
            secret: 1,
            ..role.clone()
        };
        let difference = compared(&force, &other, "");
        assert_eq!(texts(&difference), ["fake: a secret has changed"]);
        let held = Fake {
            needs_more: true,
            ..role
        };
        let difference = compared(&force, &held, text);
        assert_eq!(texts(&difference), [""; 0]);
        assert_eq!(difference.held, ["fake: more needs a restart"]);
        assert_eq!(difference.roles[0].stays, [Some(0)]);
    }

    #[test]
    fn an_open_admin_address_keeps_its_token() {
        let mut core = force(Fake::default()).core;
        core.admin.token = Secret::new(b"word");
        let mut other = core.clone();
        other.limits.idle_timeout *= 2;
        other.limits.user_timeout *= 2;
        other.workers += 1;
        other.admin.token = None;
        let (live, kept) = live_core(&core, &other);
        assert_eq!(
            (live.admin.token, kept),
            (None, None),
            "on loopback it may go"
        );
        assert_eq!(live.limits.idle_timeout, other.limits.idle_timeout);
        assert_eq!(
            (live.workers, live.limits.user_timeout),
            (core.workers, core.limits.user_timeout)
        );
        core.admin.listen = vec!["0.0.0.0:7900".parse().unwrap()];
        let (live, kept) = live_core(&core, &other);
        assert_eq!(live.admin, core.admin);
        assert!(kept.unwrap().contains("needs a restart"));
    }
}
