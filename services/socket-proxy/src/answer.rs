//! Answers to the runner.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;

use crate::engine::{self, Body};

/// Only these members of an object.
pub fn cut(value: &Value, fields: &[&str]) -> Value {
    let member = |name: &&str| value.get(*name).map(|v| ((*name).to_owned(), v.clone()));
    Value::Object(fields.iter().filter_map(member).collect())
}

/// An answer without a body.
pub fn status_only(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(engine::empty());
    *answer.status_mut() = status;
    answer
}

/// An answer of plain text.
pub fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut answer = Response::new(engine::full(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    answer
}

/// An answer with a JSON body.
pub fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut answer = Response::new(engine::full(value.to_string().into()));
    *answer.status_mut() = status;
    set_json(&mut answer);
    answer
}

/// Says that the body is JSON.
pub fn set_json(answer: &mut Response<Body>) {
    let json = http::HeaderValue::from_static("application/json");
    answer
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
}
