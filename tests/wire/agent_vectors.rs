//! Every recorded agent connection: what the codec reads in it, and that it writes the same.

use towpath::protocols::agent::wire::{
    AgentRequest, Dialect, Frame, MAX_PAYLOAD, Reply, Request, decode, decode_reply, encode_reply,
    encode_request, needed,
};

use crate::vectors::{self, Recorded, unhex};

/// What each connection of each file says, by the specification. Where that takes more than the
/// recorded program did (fields that older peers leave out, 32-bit lengths, a leading operation),
/// the program's close is not repeated, and the reading stands here.
const READINGS: &[(&str, &[&str])] = &[
    (
        "agent/document/bad_checksum",
        &["error: checksum is 0x2c but the bytes make 0x2d"],
    ),
    (
        "agent/document/bad_magic",
        &["error: magic has the unknown value 103"],
    ),
    (
        "agent/document/query_missing",
        &["document query nobody/nothing wait 0"],
    ),
    (
        "agent/document/too_long",
        &["error: payload is 524289 bytes long, over the limit of 524288"],
    ),
    (
        "agent/document/tp_success",
        &["document traffic test_http/github \"test_http_token\" after operation; 18 relayed"],
    ),
    (
        "agent/document/tp_wrong_token",
        &["document traffic test_http/github \"nope\" after operation; 0 relayed"],
    ),
    (
        "agent/document/unknown_cmd",
        &["document unknown \"delete\""],
    ),
    (
        "agent/document/unknown_op",
        &["error: op has the unknown value 2"],
    ),
    (
        "agent/document/update_then_query",
        &[
            "document update dev1/status \"hello\" op 0",
            "document query dev1/status wait 0",
        ],
    ),
    (
        "agent/early/query_without_wait",
        &["stock query dev1/status wait 0"],
    ),
    (
        "agent/early/tp_backend_refused",
        &["stock traffic offline/x \"\" after operation; 0 relayed"],
    ),
    (
        "agent/early/tp_banner",
        &["stock traffic test_http/github \"test_http_token\" after operation; 0 relayed"],
    ),
    (
        "agent/early/tp_client_half_close",
        &["stock traffic test_http/github \"test_http_token\" after operation; 3 relayed"],
    ),
    (
        "agent/early/tp_empty_server_token",
        &[
            "stock traffic open_svc/a \"\" after operation; 2 relayed",
            "stock traffic open_svc/a \"anything\" after operation; 2 relayed",
        ],
    ),
    (
        "agent/early/tp_no_default",
        &["stock traffic nodefault/other \"nd_token\" after operation; 0 relayed"],
    ),
    (
        "agent/early/tp_pipelined_first_bytes",
        &["stock traffic test_http/github \"test_http_token\" after operation; 21 relayed"],
    ),
    (
        "agent/early/tp_success",
        &["stock traffic test_http/github \"test_http_token\" after operation; 18 relayed"],
    ),
    (
        "agent/early/tp_unknown_service",
        &["stock traffic ghost/github \"test_http_token\" after operation; 0 relayed"],
    ),
    (
        "agent/early/tp_wrong_token",
        &[
            "stock traffic test_http/github \"nope\" after operation; 0 relayed",
            "stock traffic test_http/github \"\" after operation; 0 relayed",
            "stock traffic test_http/github \"test_http_token2\" after operation; 0 relayed",
            "stock traffic test_http/github \"test_http_toke\" after operation; 0 relayed",
        ],
    ),
    (
        "agent/early/update_then_query",
        &[
            "stock update dev1/status \"hello\" op 0",
            "stock query dev1/status wait 0",
        ],
    ),
    (
        "agent/early/update_without_op",
        &["stock update d/s \"x\" op 0", "stock query d/s wait 0"],
    ),
    (
        "agent/stock/bad_checksum",
        &["error: checksum is 0x20 but the bytes make 0x21"],
    ),
    (
        "agent/stock/bad_magic",
        &["error: magic has the unknown value 103"],
    ),
    (
        "agent/stock/bad_magic_header_only",
        &["error: magic has the unknown value 71"],
    ),
    (
        "agent/stock/client_fin_after_request",
        &["stock query dev1/status wait 0"],
    ),
    (
        "agent/stock/doc_layout_u32_frame",
        &[
            "document update d/s \"x\" op 0",
            "document traffic test_http/github \"test_http_token\" after operation; 0 relayed",
            "stock traffic test_http/github \"test_http_token\" after operation; 0 relayed",
        ],
    ),
    (
        "agent/stock/empty_payload",
        &[
            "error: payload needs 12 bytes but 0 are there",
            "error: payload needs 12 bytes but 0 are there",
            "error: payload needs 12 bytes but 0 are there",
        ],
    ),
    (
        "agent/stock/idle_timeouts",
        &[
            "",
            "not yet",
            "not yet",
            "stock traffic test_http/github \"test_http_token\"; 0 relayed",
        ],
    ),
    (
        "agent/stock/malformed_inner_length",
        &[
            "error: payload needs 1000 bytes but 3 are there",
            "error: cmd needs 99 bytes but 5 are there",
        ],
    ),
    (
        "agent/stock/payload_512k_plus_1",
        &["error: payload is 524289 bytes long, over the limit of 524288"],
    ),
    (
        "agent/stock/payload_512k_plus_1_full",
        &["error: payload is 524289 bytes long, over the limit of 524288"],
    ),
    (
        "agent/stock/pipelined_two_requests",
        &[
            "stock query dev1/status wait 0; stock query dev1/status wait 0",
            "stock query dev1/status wait 0; stock query dev1/status wait 0",
            "stock query dev1/status wait 0; stock query dev1/status wait 0",
        ],
    ),
    (
        "agent/stock/query_missing",
        &[
            "stock query nobody/nothing wait 0",
            "stock update dev_only/s1 \"x\" op 0",
            "stock query dev_only/s2 wait 0",
        ],
    ),
    (
        "agent/stock/query_wait",
        &[
            "stock query late/k wait 2",
            "stock query late2/k wait 5",
            "stock update late2/k \"v\" op 0",
            "stock query late3/k wait -5",
        ],
    ),
    (
        "agent/stock/query_without_wait",
        &["stock query dev1/status wait 0"],
    ),
    (
        "agent/stock/request_version_field",
        &[
            "stock query dev1/status wait 0",
            "stock query dev1/status wait 0",
        ],
    ),
    (
        "agent/stock/sample_client_traffic_proxy",
        &["stock traffic test_http/www.baidu.com \"test_http_token\"; 71 relayed"],
    ),
    (
        "agent/stock/sample_client_update_query_sniff",
        &[
            "stock update test/sec1 484 bytes op 0",
            "stock query test/sec1 wait 60",
            "stock sniff",
        ],
    ),
    (
        "agent/stock/sliced_one_byte_at_a_time",
        &["stock query dev1/status wait 0"],
    ),
    ("agent/stock/sniff", &["stock sniff"]),
    (
        "agent/stock/tp_backend_bad_dns",
        &["stock traffic baddns/x \"\"; 0 relayed"],
    ),
    (
        "agent/stock/tp_backend_refused",
        &["stock traffic offline/x \"\"; 0 relayed"],
    ),
    (
        "agent/stock/tp_banner",
        &["stock traffic test_http/github \"test_http_token\"; 0 relayed"],
    ),
    (
        "agent/stock/tp_by_name",
        &["stock traffic byname/x \"\"; 1 relayed"],
    ),
    (
        "agent/stock/tp_client_half_close",
        &["stock traffic test_http/github \"test_http_token\"; 3 relayed"],
    ),
    (
        "agent/stock/tp_default_fallback",
        &["stock traffic test_http/not_existed \"test_http_token\"; 4 relayed"],
    ),
    (
        "agent/stock/tp_empty_server_token",
        &[
            "stock traffic open_svc/a \"\"; 2 relayed",
            "stock traffic open_svc/a \"anything\"; 2 relayed",
        ],
    ),
    (
        "agent/stock/tp_pipelined_first_bytes",
        &["stock traffic test_http/github \"test_http_token\"; 21 relayed"],
    ),
    (
        "agent/stock/tp_success",
        &["stock traffic test_http/github \"test_http_token\"; 18 relayed"],
    ),
    (
        "agent/stock/tp_truncated_payload_fields",
        &["error: token needs 8 bytes but 0 are there"],
    ),
    (
        "agent/stock/tp_unknown_service",
        &["stock traffic ghost/github \"test_http_token\"; 0 relayed"],
    ),
    (
        "agent/stock/tp_wrong_token",
        &[
            "stock traffic test_http/github \"nope\"; 0 relayed",
            "stock traffic test_http/github \"\"; 0 relayed",
            "stock traffic test_http/github \"test_http_token2\"; 0 relayed",
            "stock traffic test_http/github \"test_http_toke\"; 0 relayed",
        ],
    ),
    (
        "agent/stock/trailing_bytes_in_payload",
        &[
            "stock query dev1/status wait 0",
            "stock query dev1/status wait 0",
        ],
    ),
    (
        "agent/stock/unknown_cmd",
        &[
            "stock unknown \"delete\"",
            "stock unknown \"\"",
            "stock unknown \"UPDATE\"",
        ],
    ),
    (
        "agent/stock/unknown_op",
        &[
            "error: op has the unknown value 2",
            "error: op has the unknown value 255",
        ],
    ),
    (
        "agent/stock/update_remove_op",
        &[
            "stock update rm/s \"x\" op 0",
            "stock update rm/s \"ignored\" op 1",
            "stock query rm/s wait 0",
            "stock update rm2/s \"x\" op 1",
            "stock update rm/s \"x\" op 7",
            "stock query rm/s wait 0",
        ],
    ),
    (
        "agent/stock/update_then_query",
        &[
            "stock update dev1/status \"hello\" op 0",
            "stock query dev1/status wait 0",
        ],
    ),
    (
        "agent/stock/update_without_op",
        &["stock update d/s \"x\" op 0", "stock query d/s wait 0"],
    ),
];

/// Streams whose encoding is another than the recorded one, because the sender left a field out,
/// added bytes, or wrote a version of its own, all of which a reader passes over.
const NOT_REPEATED: &[&str] = &[
    "agent/early/query_without_wait",
    "agent/early/update_without_op",
    "agent/stock/query_without_wait",
    "agent/stock/request_version_field",
    "agent/stock/trailing_bytes_in_payload",
    "agent/stock/update_without_op",
];

const FOLDERS: [&str; 3] = ["agent/document", "agent/early", "agent/stock"];

fn all() -> impl Iterator<Item = (String, Recorded)> {
    FOLDERS
        .into_iter()
        .flat_map(vectors::files)
        .flat_map(|name| {
            vectors::clients(&name)
                .into_iter()
                .map(move |recorded| (name.clone(), recorded))
        })
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn describe(dialect: Dialect, request: &Request<'_>) -> String {
    let dialect = match dialect {
        Dialect::Document => "document",
        Dialect::Stock => "stock",
    };
    let request = match *request {
        Request::Agent(AgentRequest::Update {
            id,
            section,
            data,
            op,
        }) => {
            let data = match data.len() {
                0..40 => format!("{:?}", text(data)),
                count => format!("{count} bytes"),
            };
            format!("update {}/{} {data} op {op}", text(id), text(section))
        }
        Request::Agent(AgentRequest::Query { id, section, wait }) => {
            format!("query {}/{} wait {wait}", text(id), text(section))
        }
        Request::Agent(AgentRequest::Sniff) => "sniff".to_owned(),
        Request::Agent(AgentRequest::Auth { .. }) => "auth".to_owned(),
        Request::Agent(AgentRequest::Unknown { command }) => format!("unknown {:?}", text(command)),
        Request::Traffic {
            service,
            field,
            token,
            leading_operation,
        } => format!(
            "traffic {}/{} {:?}{}",
            text(service),
            text(field),
            text(token),
            if leading_operation {
                " after operation"
            } else {
                ""
            }
        ),
    };
    format!("{dialect} {request}")
}

/// All frames of a stream in words, then how it ends.
fn read(stream: &[u8]) -> String {
    let (mut at, mut said, mut scratch) = (0, Vec::new(), Vec::new());
    while at < stream.len() {
        match decode(&stream[at..], MAX_PAYLOAD, &mut scratch) {
            Ok(Some(Frame {
                dialect,
                consumed,
                request,
            })) => {
                at += consumed;
                said.push(describe(dialect, &request));
                // What follows a traffic request belongs to the backend.
                if matches!(request, Request::Traffic { .. }) {
                    let relayed = stream.len() - at;
                    said.push(format!("{relayed} relayed"));
                    break;
                }
            }
            Ok(None) => {
                said.push("not yet".to_owned());
                break;
            }
            Err(error) => {
                said.push(format!("error: {error}"));
                break;
            }
        }
    }
    said.join("; ")
}

#[test]
fn every_recorded_stream_reads_as_the_specification_says() {
    let mut got: Vec<(String, Vec<String>)> = Vec::new();
    for (name, recorded) in all() {
        let reading = read(&recorded.sent);
        match got.last_mut() {
            Some((last, readings)) if *last == name => readings.push(reading),
            _ => got.push((name, vec![reading])),
        }
    }
    assert_eq!(got.len(), READINGS.len());
    for ((name, readings), (want_name, want)) in got.iter().zip(READINGS) {
        assert_eq!(name, want_name);
        assert_eq!(readings, want, "{name}");
    }
}

#[test]
fn every_prefix_of_a_recorded_request_is_not_yet() {
    let mut requests = 0;
    for (name, recorded) in all() {
        let (mut whole, mut scratch) = (Vec::new(), Vec::new());
        let Ok(Some(frame)) = decode(&recorded.sent, MAX_PAYLOAD, &mut whole) else {
            continue;
        };
        requests += 1;
        for end in 0..frame.consumed {
            // A buffer of exactly this size catches any look behind the end.
            let prefix: Box<[u8]> = recorded.sent[..end].into();
            let early = decode(&prefix, MAX_PAYLOAD, &mut scratch);
            assert_eq!(early, Ok(None), "{name}: {end} of {}", frame.consumed);
            assert!(
                (end + 1..=frame.consumed.max(17)).contains(&needed(&prefix)),
                "{name}: {end}"
            );
        }
        let exact = decode(&recorded.sent[..frame.consumed], MAX_PAYLOAD, &mut scratch);
        assert_eq!(exact, Ok(Some(frame)), "{name}");
    }
    assert!(requests > 60, "only {requests} requests in the vectors");
}

#[test]
fn requests_are_written_as_they_were_recorded() {
    let mut repeated = 0;
    for (name, recorded) in all() {
        let mut scratch = Vec::new();
        let Ok(Some(frame)) = decode(&recorded.sent, MAX_PAYLOAD, &mut scratch) else {
            continue;
        };
        let mask = recorded.sent[5..9].try_into().unwrap();
        let mut again = Vec::new();
        encode_request(&mut again, frame.dialect, mask, &frame.request);
        if NOT_REPEATED.contains(&name.as_str()) {
            let mut scratch = Vec::new();
            let reread = decode(&again, MAX_PAYLOAD, &mut scratch).unwrap().unwrap();
            assert_eq!(reread.request, frame.request, "{name}");
        } else {
            assert_eq!(again, recorded.sent[..frame.consumed], "{name}");
            repeated += 1;
        }
    }
    assert!(repeated > 50, "only {repeated} requests were comparable");
}

#[test]
fn recorded_replies_are_read_and_written_to_the_byte() {
    let (mut replies, mut compared) = (0, 0);
    for (name, recorded) in all() {
        let mut scratch = Vec::new();
        let dialect = match decode(&recorded.sent, MAX_PAYLOAD, &mut scratch) {
            Ok(Some(Frame {
                dialect,
                request: Request::Agent(_),
                ..
            })) => dialect,
            _ => continue,
        };
        if recorded.received.is_empty() {
            continue;
        }
        let mut scratch = Vec::new();
        let bytes = &recorded.received;
        for end in 0..bytes.len() {
            let early = decode_reply(&bytes[..end], dialect, MAX_PAYLOAD, &mut scratch);
            assert_eq!(early, Ok(None), "{name}");
        }
        let answer = decode_reply(bytes, dialect, MAX_PAYLOAD, &mut scratch)
            .unwrap()
            .unwrap();
        assert_eq!(answer.consumed, bytes.len(), "{name}");
        if let Some(response) = &recorded.response {
            compared += 1;
            assert_eq!(answer.command, response["cmd"].as_str().unwrap().as_bytes());
            assert_eq!(i64::from(answer.code), response["code"].as_i64().unwrap());
            assert_eq!(answer.message, response["msg"].as_str().unwrap().as_bytes());
            if let Some(seconds) = response["timestamp"].as_i64() {
                let payload = unhex(response["payload"].as_str().unwrap());
                assert_eq!(answer.record(), Ok((seconds, &payload[16..])), "{name}");
            }
        }
        let reply = match (answer.command, answer.code) {
            (b"update", 0) => Reply::Updated,
            (b"query", 0) => {
                let (timestamp, data) = answer.record().unwrap();
                Reply::Found { timestamp, data }
            }
            (b"query", 1) => Reply::Missing,
            (b"sniff", 0) => Reply::Sniffed {
                host: answer.host().unwrap(),
            },
            other => panic!("{name}: {other:?}"),
        };
        let mut again = Vec::new();
        encode_reply(&mut again, dialect, bytes[5..9].try_into().unwrap(), &reply);
        assert_eq!(again, *bytes, "{name}");
        replies += 1;
    }
    assert!(replies > 30, "only {replies} replies in the vectors");
    assert!(
        compared > 20,
        "only {compared} with the recorder's own reading"
    );
}

#[test]
fn only_the_scenario_of_a_payload_over_the_limit_was_cut_by_the_recorder() {
    let cut: Vec<String> = all()
        .filter(|(_, recorded)| !recorded.is_whole)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(cut, ["agent/stock/payload_512k_plus_1_full"]);
}
