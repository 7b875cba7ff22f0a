//! The OpenAPI 3.1 document as a reader uses it: checks that responses are as documented.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::fixture::{Answer, Ask};

pub(crate) struct Document {
    pub(crate) whole: Value,
    /// Method, path and status (or `default`) of each response that was seen.
    seen: RefCell<BTreeSet<(String, String, String)>>,
    validators: RefCell<HashMap<String, Rc<Validator>>>,
}

impl Document {
    pub(crate) fn new(whole: Value) -> Self {
        Self {
            whole,
            seen: RefCell::default(),
            validators: RefCell::default(),
        }
    }

    /// Method, path and operation of each call.
    pub(crate) fn operations(&self) -> Vec<(String, String, &Value)> {
        let paths = self.whole["paths"].as_object().unwrap().iter();
        let calls = paths.flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            methods.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
        });
        calls.collect()
    }

    pub(crate) fn operation(&self, method: &str, path: &str) -> &Value {
        let operation = &self.whole["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not documented");
        operation
    }

    /// Every documented response.
    pub(crate) fn documented(&self) -> BTreeSet<(String, String, String)> {
        let each = self
            .operations()
            .into_iter()
            .flat_map(|(method, path, operation)| {
                let statuses = operation["responses"].as_object().unwrap().keys();
                statuses
                    .map(move |status| (method.clone(), path.clone(), status.clone()))
                    .collect::<Vec<_>>()
            });
        each.collect()
    }

    /// Every response that was seen.
    pub(crate) fn seen(&self) -> BTreeSet<(String, String, String)> {
        self.seen.borrow().clone()
    }

    /// Resolves a reference; returns other values unchanged.
    pub(crate) fn resolved<'v>(&'v self, value: &'v Value) -> &'v Value {
        match value["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').unwrap();
                self.whole
                    .pointer(pointer)
                    .unwrap_or_else(|| panic!("{reference} cannot be resolved"))
            }
            None => value,
        }
    }

    /// Returns how a value violates a schema of the document.
    pub(crate) fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        let text = schema.to_string();
        let known = self.validators.borrow().get(&text).cloned();
        let validator = known.unwrap_or_else(|| {
            let rooted = json!({ "allOf": [schema], "components": self.whole["components"] });
            let options = jsonschema::draft202012::options().should_validate_formats(true);
            let validator = Rc::new(options.build(&rooted).unwrap());
            self.validators
                .borrow_mut()
                .insert(text, Rc::clone(&validator));
            validator
        });
        validator
            .iter_errors(value)
            .map(|error| format!("{error} at {}", error.instance_path()))
            .collect()
    }

    /// Panics if a response is not documented, or not as documented.
    pub(crate) fn check(&self, ask: &Ask, answer: &Answer) {
        self.check_as(&answer.status.to_string(), ask, answer);
        if answer.status < 300 {
            self.check_request(ask);
        }
    }

    /// Checks a response that is documented under this name.
    pub(crate) fn check_as(&self, name: &str, ask: &Ask, answer: &Answer) {
        self.check_unseen(name, ask, answer);
        self.seen
            .borrow_mut()
            .insert((ask.method.clone(), ask.template.clone(), name.to_owned()));
    }

    /// Checks a response without recording its status as seen.
    pub(crate) fn check_unseen(&self, name: &str, ask: &Ask, answer: &Answer) {
        let responses = &self.operation(&ask.method, &ask.template)["responses"];
        let response = self.resolved(&responses[name]);
        let body = String::from_utf8_lossy(&answer.body);
        assert!(
            response.is_object(),
            "{} is not documented: {ask:?}: {body}",
            answer.status
        );
        self.check_response(
            response,
            answer,
            &format!("{ask:?}: {} {body}", answer.status),
        );
    }

    /// Panics if a response does not match this documented response.
    pub(crate) fn check_response(&self, response: &Value, answer: &Answer, context: &str) {
        let nothing = serde_json::Map::new();
        let fields = response["headers"].as_object().unwrap_or(&nothing);
        for name in answer
            .headers
            .keys()
            .filter(|name| !matches!(name.as_str(), "content-type" | "content-length"))
        {
            let known = fields
                .keys()
                .any(|field| field.eq_ignore_ascii_case(name.as_str()));
            assert!(known, "{name} is not documented: {context}");
        }
        for (name, field) in fields {
            let field = self.resolved(field);
            let value = answer
                .headers
                .get(name)
                .map(|value| value.to_str().unwrap());
            assert!(
                value.is_some() || field["required"] != true,
                "{name} is missing: {context}"
            );
            let integer = field["schema"]["type"] == "integer";
            let value = value.map(|text| {
                if integer {
                    json!(text.parse::<u64>().unwrap())
                } else {
                    json!(text)
                }
            });
            let faults = value
                .map(|value| self.faults(&field["schema"], &value))
                .unwrap_or_default();
            assert!(faults.is_empty(), "{name}: {faults:?}: {context}");
        }
        let media = answer
            .headers
            .get("content-type")
            .map(|value| value.to_str().unwrap());
        match response["content"].as_object() {
            None => assert!(
                media.is_none() && answer.body.is_empty(),
                "content is not documented: {context}"
            ),
            Some(content) => {
                let media = media.unwrap_or_else(|| panic!("no content type: {context}"));
                let schema = content
                    .get(media)
                    .unwrap_or_else(|| panic!("{media} is not documented: {context}"));
                let value = serde_json::from_slice(&answer.body)
                    .unwrap_or_else(|_| panic!("no JSON: {context}"));
                let faults = self.faults(&schema["schema"], &value);
                assert!(faults.is_empty(), "{faults:#?}: {context}");
            }
        }
    }

    /// Panics if the document does not allow a successful request: its body and its parameters.
    fn check_request(&self, ask: &Ask) {
        let operation = self.operation(&ask.method, &ask.template);
        let content = &operation["requestBody"]["content"]["application/json"]["schema"];
        let is_lines = ask.headers.iter().any(|(name, value)| {
            *name == "content-type" && matches!(&**value, b"text/csv" | b"application/x-ndjson")
        });
        let json = ask.body.as_deref().filter(|_| content.is_object());
        if let Some(body) = json.filter(|_| !is_lines) {
            let value = serde_json::from_slice(body).unwrap();
            let faults = self.faults(content, &value);
            assert!(
                faults.is_empty(),
                "accepted, but not allowed by the document: {ask:?}: {faults:?}"
            );
        }
        let parameter = |place: &str, name: &str| {
            let all = operation["parameters"].as_array().into_iter().flatten();
            all.clone().find(|known| {
                known["in"] == place
                    && known["name"]
                        .as_str()
                        .is_some_and(|known| known.eq_ignore_ascii_case(name))
            })
        };
        let query = ask.path.split_once('?').map_or("", |(_, query)| query);
        for (name, text) in query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .filter(|(_, text)| !text.is_empty())
        {
            let schema = &parameter("query", name)
                .unwrap_or_else(|| panic!("{name} is not documented"))["schema"];
            let number = || {
                text.parse::<u64>()
                    .map_or_else(|_| json!(text), |number| json!(number))
            };
            let value = if schema["type"] == "integer" {
                number()
            } else {
                json!(text.replace("%20", " "))
            };
            let faults = self.faults(schema, &value);
            assert!(faults.is_empty(), "{name}={text} was accepted: {faults:?}");
        }
        // In OpenAPI, media types belong to the request body (3.1 §4.8.12.2.1).
        let fields = ask
            .headers
            .iter()
            .filter(|(name, _)| !matches!(*name, "content-type" | "accept"));
        for (name, value) in fields {
            let known =
                parameter("header", name).unwrap_or_else(|| panic!("{name} is not documented"));
            let faults = self.faults(&known["schema"], &json!(String::from_utf8_lossy(value)));
            assert!(faults.is_empty(), "{name} was accepted: {faults:?}");
        }
    }
}
