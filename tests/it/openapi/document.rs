//! The document as a judge: which answers it names, and whether an answer is one of them.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Map, Value, json};

use crate::support::Answer;

/// One thing that the document says can be answered: an operation such as `GET /livez`, a
/// status, and the media type, or the stable code where the status has several causes.
pub type Key = (String, u16, String);

/// Headers of every answer that no client looks at.
const USUAL_HEADERS: [&str; 6] =
    ["Server", "Date", "Connection", "Content-Type", "Content-Length", "Cache-Control"];

pub struct Document {
    pub root: Value,
    /// Grows with each schema that it is asked about.
    judge: RefCell<Judge>,
}

impl Document {
    pub fn new(root: Value) -> Self {
        let judge = RefCell::new(Judge::new(&root));
        Document { root, judge }
    }

    /// What a reference leads to; anything else is itself.
    pub fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').expect("a reference within the document");
                self.root.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
            }
            None => value,
        }
    }

    /// Every operation's name and content.
    pub fn operations(&self) -> Vec<(String, &Value)> {
        let mut found = Vec::new();
        for (path, item) in members(&self.root["paths"]) {
            let operations = members(item).iter().filter(|(name, _)| *name != "parameters");
            found.extend(
                operations
                    .map(|(method, operation)| (format!("{} {path}", method.to_uppercase()), operation)),
            );
        }
        found
    }

    fn operation(&self, name: &str) -> &Value {
        let (method, path) = name.split_once(' ').expect("a method and a path");
        &self.root["paths"][path][method.to_lowercase()]
    }

    /// Everything that can be answered.
    pub fn keys(&self) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for (name, operation) in self.operations() {
            for (status, response) in members(&operation["responses"]) {
                let status = status.parse().expect("a status");
                let variants = variants(self.resolved(response));
                keys.extend(variants.into_iter().map(|variant| (name.clone(), status, variant)));
            }
        }
        keys
    }

    /// Judges an answer: its status, its media type, its headers and its body. Returns which
    /// of the document's it is.
    pub fn judge(&self, operation: &str, answer: &Answer) -> Key {
        let response = &self.operation(operation)["responses"][answer.status.to_string()];
        assert!(!response.is_null(), "{operation} is not said to answer {}: {answer:?}", answer.status);
        let response = self.resolved(response);
        let media_type = answer.header("Content-Type").expect("a media type");
        let content = &response["content"][media_type];
        assert!(!content.is_null(), "{operation} is not said to answer {media_type}: {answer:?}");
        if media_type == "application/json" {
            let schema = &content["schema"];
            self.judge
                .borrow_mut()
                .check(schema, &answer.body)
                .unwrap_or_else(|why| panic!("{operation} {}: {why}\n{answer:?}", answer.status));
        }
        self.judge_headers(operation, response, answer);
        let variants = variants(response);
        let code = answer.body["details"]["reason"].as_str().filter(|code| variants.contains(*code));
        (operation.to_owned(), answer.status, code.unwrap_or(media_type).to_owned())
    }

    fn judge_headers(&self, operation: &str, response: &Value, answer: &Answer) {
        let none = Map::new();
        let headers = response["headers"].as_object().unwrap_or(&none);
        for (name, header) in headers {
            let header = self.resolved(header);
            let Some(value) = answer.header(name) else {
                assert!(header["required"] != true, "{operation}: {name} is missing: {answer:?}");
                continue;
            };
            let value = match value.parse::<i64>() {
                Ok(number) if header["schema"]["type"] == "integer" => json!(number),
                _ => json!(value),
            };
            let judged = self.judge.borrow_mut().check(&header["schema"], &value);
            judged.unwrap_or_else(|why| panic!("{operation}: {name}: {why}\n{answer:?}"));
        }
        for line in answer.headers.lines().skip(1) {
            let name = line.split(':').next().expect("a name");
            let known = USUAL_HEADERS.into_iter().chain(headers.keys().map(String::as_str));
            assert!(
                known.into_iter().any(|known| known.eq_ignore_ascii_case(name)),
                "{operation} {} is not said to have {name}: {answer:?}",
                answer.status
            );
        }
    }

    /// What the document says of an operation's body.
    pub fn request_schema(&self, operation: &str) -> &Value {
        let content = &self.resolved(&self.operation(operation)["requestBody"])["content"];
        let schema = &content["application/json"]["schema"];
        assert!(!schema.is_null(), "{operation} is not said to take a body");
        schema
    }

    /// Judges the body of a request that was taken.
    pub fn judge_taken(&self, operation: &str, body: &Value) {
        let judged = self.check(self.request_schema(operation), body);
        judged.unwrap_or_else(|why| panic!("{operation} took what it should not: {why}\n{body}"));
    }

    /// Judges a value by a schema as it stands in the document.
    pub fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        self.judge.borrow_mut().check_request(schema, value)
    }
}

pub fn members(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("not an object: {value}"))
}

/// What tells the answers of one status: the codes, where it always has one, else its media
/// types.
fn variants(response: &Value) -> BTreeSet<String> {
    let content = members(&response["content"]);
    let schema = &response["content"]["application/json"]["schema"];
    let has_code = schema["required"].as_array().is_some_and(|names| names.contains(&json!("details")));
    let codes = schema["properties"]["details"]["properties"]["reason"]["enum"].as_array();
    match codes.filter(|_| has_code) {
        Some(codes) => codes.iter().map(|code| code.as_str().expect("a code").to_owned()).collect(),
        None => content.keys().cloned().collect(),
    }
}

/// Schemas of the document, compiled as they are asked for.
struct Judge {
    root: Value,
    closed: Value,
    schemas: Schemas,
    compiled: HashMap<String, SchemaIndex>,
}

impl Judge {
    fn new(root: &Value) -> Self {
        let mut closed = json!({ "components": root["components"] });
        close(&mut closed);
        let root = json!({ "components": root["components"] });
        Judge { root, closed, schemas: Schemas::new(), compiled: HashMap::new() }
    }

    /// Judges an answer, in which nothing may be that the document does not name.
    fn check(&mut self, schema: &Value, value: &Value) -> Result<(), String> {
        let mut schema = schema.clone();
        close(&mut schema);
        let root = self.closed.clone();
        self.check_by(root, "answer", schema, value)
    }

    fn check_request(&mut self, schema: &Value, value: &Value) -> Result<(), String> {
        let root = self.root.clone();
        self.check_by(root, "request", schema.clone(), value)
    }

    fn check_by(&mut self, mut root: Value, kind: &str, schema: Value, value: &Value) -> Result<(), String> {
        let text = format!("{kind} {schema}");
        let index = match self.compiled.get(&text) {
            Some(index) => *index,
            None => {
                let url = format!("http://contract/{}", self.compiled.len());
                root["allOf"] = json!([schema]);
                let mut compiler = Compiler::new();
                compiler.enable_format_assertions();
                compiler.enable_content_assertions();
                compiler.add_resource(&url, root).expect("a resource");
                let index = compiler
                    .compile(&url, &mut self.schemas)
                    .unwrap_or_else(|error| panic!("{error:#}: {text}"));
                self.compiled.insert(text, index);
                index
            }
        };
        self.schemas.validate(value, index).map_err(|error| format!("{error:#}"))
    }
}

/// Lets every object have the members that are named, and no other.
fn close(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(close);
            if members.get("properties").is_some_and(Value::is_object) {
                members.entry("unevaluatedProperties").or_insert(json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
