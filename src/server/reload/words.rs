//! What is said of a change, and a route that came as JSON as if it stood in a file.

use serde_json::Value;

use super::difference::Item as Changed;
use crate::config::{Entry, Item, Position, Value as Given};
use crate::worker::Renewed;

/// One line for each thing, and one for all.
pub(super) fn report(what: &str, items: &[Changed], held: &[String], renewed: &Renewed) {
    for item in items {
        log::info!("{what}: {}", item.text);
    }
    for text in held {
        log::warn!("{what}: {text}");
    }
    for failure in &renewed.failures {
        log::error!("{what}: {failure}");
    }
    let (changes, held) = (items.len(), held.len());
    let leaving: usize = renewed.leaving.iter().sum();
    log::info!("{what}: in force, changes={changes} need_restart={held} draining={leaving}");
}

/// A value as if it stood in a configuration file. A reader of JSON bounds its depth.
pub(super) fn words(value: &Value) -> Item {
    let at = Position::default();
    let value = match value {
        Value::String(text) => Given::Text(text.clone()),
        Value::Bool(truth) => Given::Truth(*truth),
        Value::Null => Given::Truth(false),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Given::Number(number.into()),
            None => Given::Fraction,
        },
        Value::Array(values) => Given::List(values.iter().map(words).collect()),
        Value::Object(entries) => {
            let entry = |(name, value): (&String, &Value)| Entry {
                name: name.clone(),
                at,
                item: words(value),
            };
            // What is nothing is as if it were not there.
            let some = entries.iter().filter(|(_, value)| !value.is_null());
            Given::Table(some.map(entry).collect())
        }
    };
    Item { at, value }
}
