//! Who may use a proxy listener, as the file says it: `{ name = "password" }`, or a list of
//! `{ name = "...", password = "..." }` where a name is no plain word or a password is in a file.

use super::access::mistake;
use crate::config::{Entry, Item, Position, Settings, Value};
use crate::protocols::chain::users::User;

/// The users of an item; what is wrong is told. `parted` is true where a colon parts name and
/// password on the wire, so that no name may have one.
pub(super) fn read(item: &Item, parted: bool, settings: &mut Settings) -> Vec<User> {
    let mut users: Vec<User> = Vec::new();
    let given = match &item.value {
        Value::Table(entries) => entries.iter().map(Given::of_entry).collect(),
        Value::List(items) => {
            let given = items
                .iter()
                .filter_map(|item| Given::of_item(item, settings));
            given.collect()
        }
        _ => Vec::new(),
    };
    let count = match &item.value {
        Value::Table(entries) => entries.len(),
        Value::List(items) => items.len(),
        _ => 0,
    };
    if !(1..=MOST_USERS).contains(&count) {
        let found = match &item.value {
            Value::Table(_) | Value::List(_) => format!("{count} of them"),
            other => other.describe(),
        };
        let message = format!("wants 1 to {MOST_USERS} users, such as {USERS}; found {found}");
        mistake(settings, item.at, "users", &message);
        return users;
    }
    for given in given {
        let at = given.at;
        let Some(user) = given.user(parted, settings) else {
            continue;
        };
        if users.iter().any(|known| known.name == user.name) {
            let message = "a user of that name is in this list already";
            mistake(settings, at, "users", message);
        }
        users.push(user);
    }
    users
}

/// A user before anything is checked.
struct Given {
    /// Where the name stands.
    at: Position,
    name: String,
    password: Item,
}

impl Given {
    fn of_entry(entry: &Entry) -> Given {
        Given {
            at: entry.at,
            name: entry.name.clone(),
            password: entry.item.clone(),
        }
    }

    fn of_item(item: &Item, settings: &mut Settings) -> Option<Given> {
        let [name, password] = settings.fields(item, ["name", "password"], USER)?;
        let (Some(name), Some(password)) = (name, password) else {
            settings.mistake(item.at, format!("a user has both; write {USER}"));
            return None;
        };
        match name.value {
            Value::Text(text) => Some(Given {
                at: name.at,
                name: text,
                password,
            }),
            other => {
                let message = format!("wants a text; found {}", other.describe());
                mistake(settings, name.at, "name", &message);
                None
            }
        }
    }

    fn user(self, parted: bool, settings: &mut Settings) -> Option<User> {
        let length = self.name.len();
        if !LENGTHS.contains(&length) {
            let message = format!("a name has 1 to 255 bytes; this one has {length}");
            mistake(settings, self.at, "users", &message);
        }
        if parted && self.name.contains(':') {
            let message = "no name may have a colon: it ends there for HTTP";
            mistake(settings, self.at, "users", message);
        }
        let is_empty = self.password.value == Value::Text(String::new());
        let password = settings.secret_of(&self.password, "password");
        let length = password.as_ref().map_or(0, |text| text.expose().len());
        if !LENGTHS.contains(&length) && (is_empty || length > 0) {
            let message = format!("a password has 1 to 255 bytes; this one has {length}");
            mistake(settings, self.password.at, "users", &message);
        }
        Some(User {
            name: self.name.into(),
            password: password?,
        })
    }
}

/// What a length of one byte can say, but for nothing.
const LENGTHS: std::ops::RangeInclusive<usize> = 1..=255;

/// Each is compared with whoever comes.
const MOST_USERS: usize = 256;

const USER: &str = r#"{ name = "ann", password = { file = "ann.password" } }"#;

const USERS: &str = r#"{ ann = "her password" }"#;
