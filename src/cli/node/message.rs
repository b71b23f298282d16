//! A message as a line for people, or for programs.

use prost::Message as _;
use serde_json::json;

use crate::config::plain;
use crate::node::{Frame, opcode};
use crate::protocols::node::wire::{Bytes, Message};

/// The data of a message that carries some.
pub(super) fn data(message: &Message) -> Option<Vec<u8>> {
    let is_data = message.opcode == opcode::BYTES;
    let bytes = is_data.then(|| Bytes::decode(&message.message[..]).ok());
    bytes.flatten().map(|bytes| bytes.data)
}

/// One line, with its end. What peers wrote is escaped as far as it would move a terminal's cursor.
pub(super) fn line(frame: &Frame, message: Option<&Message>, is_json: bool) -> String {
    let mut line = match (is_json, message) {
        (true, message) => as_json(frame, message),
        (false, None) => {
            let length = frame.body().len();
            match frame.head().is_compressed() {
                true => format!("(a compressed message of {length} bytes)"),
                false => format!("({length} bytes that are no message)"),
            }
        }
        (false, Some(message)) => match data(message) {
            Some(data) => plain(&String::from_utf8_lossy(&data)),
            None => {
                let (name, from) = (name(message.opcode), plain(&sender(message)));
                let length = message.message.len();
                format!("({name} from {from}, {length} bytes)")
            }
        },
    };
    line.push('\n');
    line
}

/// `data` where it is text, else `hex`: of a message's data, of another message's inner bytes, or of a
/// frame's body that is no message.
fn as_json(frame: &Frame, message: Option<&Message>) -> String {
    let (mut object, bytes) = match message {
        None => (json!({}), frame.body().to_vec()),
        Some(message) => (
            json!({ "from": sender(message), "opcode": message.opcode }),
            data(message).unwrap_or_else(|| message.message.clone()),
        ),
    };
    match String::from_utf8(bytes) {
        Ok(text) => object["data"] = text.into(),
        Err(error) => {
            let hex = error.as_bytes().iter().map(|byte| format!("{byte:02x}"));
            object["hex"] = hex.collect::<String>().into();
        }
    }
    object.to_string()
}

/// Whom the message claims to be from.
pub(super) fn sender(message: &Message) -> String {
    let address = message.sender.as_ref().map(|id| id.address.as_slice());
    String::from_utf8_lossy(address.unwrap_or_default()).into_owned()
}

fn name(code: u32) -> String {
    let name = match code {
        opcode::BYTES => "broken data",
        opcode::KEEPALIVE => "keepalive",
        opcode::KEEPALIVE_RESPONSE => "keepalive response",
        opcode::PROXY_RESPONSE => "proxy response",
        opcode::PING => "ping",
        opcode::PONG => "pong",
        opcode::LOOKUP_NODE_REQUEST => "lookup request",
        opcode::LOOKUP_NODE_RESPONSE => "lookup response",
        opcode::DISCONNECT => "disconnect",
        opcode::PROXY_REQUEST => "proxy request",
        opcode::METRIC_REQUEST => "metric request",
        opcode::METRIC_RESPONSE => "metric response",
        opcode::ASYNC_ACK_RESPONSE => "acknowledgement",
        _ => return format!("opcode {code}"),
    };
    name.to_owned()
}
