//! What every operation answers to a request that is malformed, too large or too slow, or
//! comes from somebody who may not: provoked for each operation by its method and its path
//! alone.

use std::fs;
use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};

use super::document::members;
use super::walk::Walk;
use crate::support::{Answer, Gateway, raw_request, read_answer, wait_until};

/// Bytes of a body that needs a share of the gate's common memory.
const LARGE: usize = 20_000;
/// All of that memory.
const ALL_MEMORY: usize = 64 << 20;

/// The operation as a request line's first two words.
fn target(operation: &str) -> String {
    operation.replace("{id}", "nobody")
}

fn send(gateway: &Gateway, operation: &str, lines: &str) -> Answer {
    let request = format!("{} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{lines}\r\n", target(operation));
    raw_request(gateway.address(), request.as_bytes()).expect("an answer")
}

fn with_token(gateway: &Gateway, operation: &str, token: &str, lines: &str) -> Answer {
    send(gateway, operation, &format!("Authorization: Bearer {token}\r\n{lines}"))
}

/// Requests that the gate refuses before it knows the route.
pub fn malformed(walk: &Walk, gateway: &Gateway) {
    let long = "x".repeat(17 << 10);
    for (operation, _) in walk.document.operations() {
        for (status, lines) in [
            (400, "X : y\r\n".to_owned()),
            (413, "Content-Length: 99999999999\r\n".to_owned()),
            (417, "Expect: more\r\n".to_owned()),
            (431, format!("X: {long}\r\n")),
            (501, "Transfer-Encoding: gzip\r\n".to_owned()),
        ] {
            walk.note(&operation, status, &send(gateway, &operation, &lines));
        }
        let target = target(&operation);
        for (status, line) in
            [(414, format!("{target}?{long} HTTP/1.1")), (505, format!("{target} HTTP/2.0"))]
        {
            let request = format!("{line}\r\nHost: t\r\n\r\n");
            let answer = raw_request(gateway.address(), request.as_bytes()).expect("an answer");
            walk.note(&operation, status, &answer);
        }
    }
}

/// Heads of which the end does not come, one for each operation: begun at once, and looked
/// at when the gate's patience is over.
pub struct Dribbled(Vec<(String, TcpStream)>);

impl Dribbled {
    pub fn begin(walk: &Walk, gateway: &Gateway) -> Self {
        let begin = |(operation, _): (String, &Value)| {
            let mut stream = TcpStream::connect(gateway.address()).expect("a connection");
            let head = format!("{} HTTP/1.1\r\nHost: t\r\n", target(&operation));
            stream.write_all(head.as_bytes()).expect("sent");
            (operation, stream)
        };
        Dribbled(walk.document.operations().into_iter().map(begin).collect())
    }

    pub fn end(self, walk: &Walk) {
        for (operation, stream) in self.0 {
            walk.note(&operation, 408, &read_answer(stream).expect("an answer"));
        }
    }
}

/// A token that the operation does not take: of the operator's where agents ask, else an
/// agent's, unless that is taken as well.
fn wrong_token<'a>(operation: &Value, gateway: &'a Gateway, agent: &'a str, backup: &'a str) -> &'a str {
    let schemes = operation["security"].as_array().expect("security").iter().flat_map(members);
    let schemes: Vec<&str> = schemes.map(|(scheme, _)| scheme.as_str()).collect();
    match (schemes.contains(&"agent"), schemes.contains(&"operator")) {
        (true, true) => backup,
        (true, false) => &gateway.token,
        _ => agent,
    }
}

/// Requests without the token that is needed, and without a body where one is.
pub fn unauthorized(walk: &Walk, gateway: &Gateway, agent: &str, backup: &str) {
    for (operation, content) in walk.document.operations() {
        if content["security"] == json!([]) {
            continue;
        }
        walk.note(&operation, 401, &send(gateway, &operation, ""));
        let wrong = wrong_token(content, gateway, agent, backup);
        walk.note(&operation, 403, &with_token(gateway, &operation, wrong, ""));
        if content["requestBody"]["required"] == true {
            let right = if operation == "POST /v1/authorize" { agent } else { &gateway.token };
            walk.note(&operation, 411, &with_token(gateway, &operation, right, ""));
        }
    }
}

/// Requests without a valid token, of which there were too many; the gateway allows one a
/// minute.
pub fn too_many(walk: &Walk, gateway: &Gateway) {
    for (operation, content) in walk.document.operations() {
        if content["security"] == json!([]) {
            continue;
        }
        let again = || with_token(gateway, &operation, "wrong", "");
        let answer = std::iter::repeat_with(again).find(|answer| answer.status != 401);
        walk.note(&operation, 429, &answer.expect("an answer"));
    }
}

/// Whether all that was sent on this connection has been read at its other end. To ask the
/// gateway would not do: what it holds for the question, the one who holds all could not get.
fn is_read(stream: &TcpStream) -> bool {
    let ends = [stream.local_addr(), stream.peer_addr()];
    let ports = ends.map(|end| format!(":{:04X} ", end.expect("an address").port()));
    let table = fs::read_to_string("/proc/net/tcp").expect("a table");
    let of_stream = |line: &&str| ports.iter().all(|port| line.contains(port.as_str()));
    let mut queues = table.lines().filter(of_stream).map(|line| line.split_whitespace().nth(4));
    queues.all(|queues| queues == Some("00000000:00000000"))
}

/// Bodies for which there is no room, since one that is still coming holds all of it. The
/// gateway takes bodies as large as that.
pub fn overloaded(walk: &Walk, gateway: &Gateway) {
    let mut holder = TcpStream::connect(gateway.address()).expect("a connection");
    let head = format!("POST /v1/tools HTTP/1.1\r\nHost: t\r\nContent-Length: {ALL_MEMORY}\r\n\r\n");
    holder.write_all(head.as_bytes()).expect("sent");
    holder.write_all(&vec![b' '; ALL_MEMORY - 1]).expect("sent");
    let large = |operation: &str| {
        let body = " ".repeat(LARGE);
        let target = target(operation);
        let request = format!(
            "{target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {LARGE}\r\n\r\n{body}"
        );
        raw_request(gateway.address(), request.as_bytes()).expect("an answer")
    };
    wait_until("all memory is held", || is_read(&holder));
    for (operation, _) in walk.document.operations() {
        walk.note(&operation, 503, &large(&operation));
    }
}
