//! Cases, and the walk that takes them: what is asked, and what must be answered.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;

use super::document::{Document, Key};
use crate::support::{Answer, Gateway, raw_request};

/// One request, and its answer's status.
#[derive(Clone)]
pub struct Case {
    operation: &'static str,
    status: u16,
    id: String,
    query: String,
    token: Option<String>,
    headers: String,
    body: Option<String>,
}

/// A request of the operator's.
pub fn case(operation: &'static str, status: u16) -> Case {
    let (id, query, headers) = (String::new(), String::new(), String::new());
    Case { operation, status, id, query, token: None, headers, body: None }
}

impl Case {
    /// What stands for `{id}`.
    pub fn id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    pub fn query(mut self, query: &str) -> Self {
        self.query = format!("?{query}");
        self
    }

    /// Another token than the operator's.
    pub fn by(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub fn header(mut self, line: &str) -> Self {
        self.headers.push_str(&format!("{line}\r\n"));
        self
    }

    pub fn body(self, body: &Value) -> Self {
        self.text(&body.to_string())
    }

    /// A body that need not be JSON.
    pub fn text(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self
    }
}

pub struct Walk {
    pub document: Document,
    seen: RefCell<BTreeSet<Key>>,
    codes: RefCell<BTreeSet<String>>,
}

impl Walk {
    pub fn new(document: Document) -> Self {
        Walk { document, seen: RefCell::default(), codes: RefCell::default() }
    }

    /// What was answered, as the document names it.
    pub fn seen(&self) -> BTreeSet<Key> {
        self.seen.borrow().clone()
    }

    /// The stable codes that were answered.
    pub fn codes(&self) -> BTreeSet<String> {
        self.codes.borrow().clone()
    }

    pub fn take_all<const N: usize>(&self, gateway: &Gateway, cases: [Case; N]) {
        for case in cases {
            self.take(gateway, case);
        }
    }

    /// Asks, and has the answer judged.
    pub fn take(&self, gateway: &Gateway, case: Case) -> Answer {
        let (method, pattern) = case.operation.split_once(' ').expect("a method and a path");
        let path = pattern.replace("{id}", &case.id) + &case.query;
        let token = case.token.as_ref().unwrap_or(&gateway.token);
        let length = case.body.as_ref().map(|body| format!("Content-Length: {}\r\n", body.len()));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{}{}\r\n{}",
            case.headers,
            length.unwrap_or_default(),
            case.body.as_deref().unwrap_or_default()
        );
        let answer = raw_request(gateway.address(), request.as_bytes()).expect("an answer");
        self.note(case.operation, case.status, &answer);
        if answer.status < 300
            && let Some(body) = case.body.filter(|body| !body.is_empty())
        {
            let body = serde_json::from_str(&body).expect("JSON was taken");
            self.document.judge_taken(case.operation, &body);
        }
        answer
    }

    /// Has an answer judged that was got in another way.
    pub fn note(&self, operation: &str, status: u16, answer: &Answer) {
        assert_eq!(answer.status, status, "{operation}: {answer:?}");
        let key = self.document.judge(operation, answer);
        self.seen.borrow_mut().insert(key);
        if let Some(code) = answer.body["details"]["reason"].as_str() {
            self.codes.borrow_mut().insert(code.to_owned());
        }
    }
}
