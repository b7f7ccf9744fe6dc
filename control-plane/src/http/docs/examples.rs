//! Examples of whole bodies, put together from the examples of their fields.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Components, Content, RefOr};

/// A schema that contains itself ends here.
const MAX_DEPTH: usize = 12;

/// The document's named schemas, as JSON: there they have one form and not five.
pub(super) struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    pub(super) fn of(components: &Components) -> Self {
        let named = components.schemas.iter();
        let json = |(name, schema)| Some((String::clone(name), serde_json::to_value(schema).ok()?));
        Self(named.filter_map(json).collect())
    }

    /// Gives the operation's bodies their examples, unless they have some.
    pub(super) fn illustrate(&self, operation: &mut Operation) {
        if let Some(RefOr::T(body)) = &mut operation.request_body {
            self.illustrate_each(body.content.values_mut());
        }
        for response in operation.responses.responses.values_mut() {
            if let RefOr::T(response) = response {
                self.illustrate_each(response.content.values_mut());
            }
        }
    }

    fn illustrate_each<'a>(&self, contents: impl Iterator<Item = &'a mut RefOr<Content>>) {
        for content in contents {
            let RefOr::T(content) = content else { continue };
            if content.example.is_none() && content.examples.is_empty() {
                let schema = serde_json::to_value(&content.schema).unwrap_or_default();
                content.example = self.example(&schema, 0);
            }
        }
    }

    /// A value of the schema, if its fields say enough to make one.
    fn example(&self, schema: &Value, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        let inner = |schema: &Value| self.example(schema, depth + 1);
        if let Some(value) = stated(schema) {
            return Some(value);
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let (_, name) = reference.rsplit_once('/')?;
            return inner(self.0.get(name)?);
        }
        for choice in ["oneOf", "anyOf"] {
            if let Some(schemas) = schema.get(choice).and_then(Value::as_array) {
                let mut values = schemas.iter().filter_map(inner);
                return values.find(|value| !value.is_null());
            }
        }
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            let parts: Option<Vec<_>> = parts.iter().map(inner).collect();
            return Some(merged(parts?));
        }
        match type_of(schema) {
            "object" => self.object(schema, depth),
            "array" => {
                let item = schema.get("items").and_then(inner);
                Some(Value::Array(item.into_iter().collect()))
            }
            "boolean" => Some(json!(true)),
            "integer" | "number" => Some(schema.get("minimum").cloned().unwrap_or(json!(0))),
            "string" => of_format(schema.get("format")?.as_str()?),
            "null" => Some(Value::Null),
            _ => None,
        }
    }

    /// Optional fields that nothing is known of are left out.
    fn object(&self, schema: &Value, depth: usize) -> Option<Value> {
        let required = schema.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|it| it.iter().any(|it| it == name));
        let mut object = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            match self.example(property, depth + 1) {
                Some(value) => drop(object.insert(name.clone(), value)),
                None if is_required(name) => return None,
                None => (),
            }
        }
        Some(object.into())
    }
}

/// What the schema itself gives as one of its values.
fn stated(schema: &Value) -> Option<Value> {
    let first = |key| schema.get(key)?.as_array()?.first();
    schema
        .get("example")
        .or_else(|| first("examples"))
        .or_else(|| schema.get("const"))
        .or_else(|| first("enum"))
        .or_else(|| schema.get("default"))
        .cloned()
}

/// The type, or the one besides null.
fn type_of(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(types)) => {
            let mut names = types.iter().filter_map(Value::as_str);
            names.find(|name| *name != "null").unwrap_or_default()
        }
        _ => "",
    }
}

fn of_format(format: &str) -> Option<Value> {
    Some(json!(match format {
        "uuid" => "0190a0c8-5b7e-7cc3-9a3e-2f6d4c1b8a90",
        "date-time" => "2026-01-31T12:00:00Z",
        "date" => "2026-01-31",
        "email" => "anna@example.org",
        "password" => "correct horse battery staple",
        "uri" => "https://example.org/",
        _ => return None,
    }))
}

fn merged(parts: Vec<Value>) -> Value {
    let objects = parts.into_iter().filter_map(|part| match part {
        Value::Object(object) => Some(object),
        _ => None,
    });
    objects.flatten().collect::<Map<_, _>>().into()
}
