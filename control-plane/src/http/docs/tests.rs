//! The document is complete, whatever operations there are.

use std::collections::HashSet;

use serde_json::Value;

use crate::router::Documentation;

fn document() -> Value {
    serde_json::to_value(Documentation::new().document()).unwrap()
}

/// Every operation under its method and path.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let item = item.as_object().unwrap().iter();
            item.map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
        .collect()
}

/// Fails with everything that is missing at once.
fn nothing(missing: &[String]) {
    assert!(missing.is_empty(), "missing: {missing:#?}");
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Every body of an operation with where it is.
fn bodies<'a>(name: &str, operation: &'a Value) -> Vec<(String, &'a Value)> {
    let request = &operation["requestBody"]["content"];
    let responses = operation["responses"].as_object().unwrap().iter();
    let answers = responses.map(|(status, it)| (format!("{name} {status}"), &it["content"]));
    std::iter::once((format!("{name} request"), request))
        .chain(answers)
        .flat_map(|(place, content)| {
            let types = content.as_object().into_iter().flatten();
            types.map(move |(media, body)| (format!("{place} {media}"), body))
        })
        .collect()
}

#[test]
fn every_operation_says_what_it_is() {
    let document = document();
    let tags = document["tags"].as_array().unwrap();
    let described: HashSet<_> = tags.iter().map(|tag| text(tag, "name")).collect();
    let (mut ids, mut missing) = (HashSet::new(), Vec::new());
    for (name, operation) in operations(&document) {
        for key in ["summary", "description", "operationId"] {
            if text(operation, key).is_empty() {
                missing.push(format!("{name}: {key}"));
            }
        }
        if !ids.insert(text(operation, "operationId")) {
            missing.push(format!("{name}: an operationId of its own"));
        }
        let tags = operation["tags"].as_array();
        let mut tags = tags.into_iter().flatten().filter_map(Value::as_str);
        if !tags.clone().any(|_| true) || !tags.all(|tag| described.contains(tag)) {
            missing.push(format!("{name}: a tag that is described in docs.rs"));
        }
    }
    nothing(&missing);
}

#[test]
fn every_operation_says_how_it_fails() {
    let document = document();
    let defined = document["components"]["responses"].as_object().unwrap();
    let mut missing = Vec::new();
    for (name, operation) in operations(&document) {
        let has = |key: &str| operation.get(key).is_some();
        let parameters = operation["parameters"].as_array();
        let in_path = parameters.is_some_and(|all| all.iter().any(|it| it["in"] == "path"));
        let security = operation["security"].to_string();
        let is_of_people = security.contains("bearer") || security.contains("operator");
        let expected = [
            ("400", has("requestBody") || parameters.is_some()),
            ("401", security != "[{}]"),
            ("403", is_of_people),
            ("404", in_path),
            ("413", has("requestBody")),
            ("415", has("requestBody")),
            ("429", true),
            ("500", true),
            ("503", true),
            ("default", true),
        ];
        let responses = operation["responses"].as_object().unwrap();
        for (status, is_possible) in expected {
            if is_possible && !responses.contains_key(status) {
                missing.push(format!("{name}: {status}"));
            }
        }
        for (status, response) in responses {
            let reference = text(response, "$ref")
                .rsplit('/')
                .next()
                .unwrap_or_default();
            if !reference.is_empty() && !defined.contains_key(reference) {
                missing.push(format!("{name}: {status} refers to nothing"));
            }
        }
    }
    nothing(&missing);
}

#[test]
fn every_error_shows_its_envelope() {
    let document = document();
    for (name, response) in document["components"]["responses"].as_object().unwrap() {
        let examples = &response["content"]["application/json"]["examples"];
        let examples = examples.as_object().unwrap();
        assert!(!examples.is_empty(), "{name}");
        for (code, example) in examples {
            assert_eq!(example["value"]["error"]["code"], code.as_str());
            assert!(text(response, "description").contains(code.as_str()));
        }
    }
}

#[test]
fn every_json_body_has_an_example() {
    let document = document();
    let all = operations(&document);
    let bodies = all.iter().flat_map(|(name, it)| bodies(name, it));
    let missing: Vec<_> = bodies
        .filter(|(place, _)| place.contains("json") || place.contains("form"))
        .filter(|(_, body)| body.get("example").is_none() && body.get("examples").is_none())
        .map(|(place, _)| format!("{place}: an example for each field that is text"))
        .collect();
    nothing(&missing);
}

#[test]
fn every_parameter_and_scheme_is_described() {
    let document = document();
    let mut missing = Vec::new();
    for (name, operation) in operations(&document) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            if text(parameter, "description").is_empty() {
                missing.push(format!("{name}: {}", parameter["name"]));
            }
        }
    }
    for (name, scheme) in document["components"]["securitySchemes"]
        .as_object()
        .unwrap()
    {
        if text(scheme, "description").is_empty() {
            missing.push(name.clone());
        }
    }
    nothing(&missing);
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"][0]["url"], "/");
    assert_eq!(document["info"]["license"]["identifier"], "MIT");
}

/// What a reader of a schema sees in place of a value.
fn is_illustrated(schema: &Value) -> bool {
    let is_text = match &schema["type"] {
        Value::String(name) => name == "string",
        Value::Array(names) => names.iter().any(|name| name == "string"),
        _ => false,
    };
    let keys = ["example", "examples", "enum", "const", "format", "default"];
    !is_text || keys.iter().any(|key| schema.get(*key).is_some())
}

#[test]
fn every_field_that_is_text_shows_one() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut missing = Vec::new();
    for (name, schema) in schemas {
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            if !is_illustrated(schema) {
                missing.push(format!("{name}.{field}: an example or a format"));
            }
        }
    }
    nothing(&missing);
}
