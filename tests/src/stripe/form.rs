//! Parameters as Stripe's clients send them: `items[0][price]=…`, `expand[]=…`.

use serde_json::{Map, Value};

/// Brackets become objects, numbered and empty ones lists. Every value stays a text.
#[must_use]
pub fn parse(encoded: &[u8]) -> Value {
    let mut root = Map::new();
    for (name, value) in form_urlencoded::parse(encoded) {
        insert(&mut root, &path(&name), &value);
    }
    with_lists(root, false)
}

fn path(name: &str) -> Vec<String> {
    let mut parts = name.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    let inner = parts.map(|part| part.trim_end_matches(']').to_owned());
    std::iter::once(first).chain(inner).collect()
}

fn insert(into: &mut Map<String, Value>, path: &[String], value: &str) {
    let Some((key, rest)) = path.split_first() else {
        return;
    };
    let key = if key.is_empty() {
        into.len().to_string()
    } else {
        key.clone()
    };
    if rest.is_empty() {
        into.insert(key, value.into());
        return;
    }
    let inner = into.entry(key).or_insert_with(|| Map::new().into());
    if let Value::Object(inner) = inner {
        insert(inner, rest, value);
    }
}

fn with_lists(map: Map<String, Value>, is_inner: bool) -> Value {
    let is_list = is_inner && !map.is_empty() && map.keys().all(|key| key.parse::<u32>().is_ok());
    // The keys of metadata are the caller's: a number among them is a name.
    let entries = map.into_iter().map(|(key, value)| match value {
        Value::Object(inner) if key == "metadata" => (key, inner.into()),
        Value::Object(inner) => (key, with_lists(inner, true)),
        other => (key, other),
    });
    if !is_list {
        return Value::Object(entries.collect());
    }
    let mut numbered: Vec<(u32, Value)> = entries
        .filter_map(|(key, value)| Some((key.parse().ok()?, value)))
        .collect();
    numbered.sort_by_key(|(number, _)| *number);
    numbered.into_iter().map(|(_, value)| value).collect()
}

/// The same the other way round, for the server behind.
#[must_use]
pub fn encode(parameters: &Value) -> String {
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    for (key, value) in parameters.as_object().into_iter().flatten() {
        append(&mut pairs, key, value);
    }
    pairs.finish()
}

fn append(pairs: &mut form_urlencoded::Serializer<'_, String>, name: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Object(inner) => {
            for (key, value) in inner {
                append(pairs, &format!("{name}[{key}]"), value);
            }
        }
        Value::Array(inner) => {
            for (index, value) in inner.iter().enumerate() {
                append(pairs, &format!("{name}[{index}]"), value);
            }
        }
        Value::String(text) => {
            pairs.append_pair(name, text);
        }
        other => {
            pairs.append_pair(name, &other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn brackets_are_objects_and_lists() {
        let parsed = parse(
            b"customer=cus_1&items[0][price]=a&items[1][price]=b&expand[]=x.y&expand[]=z\
              &metadata[7]=seven",
        );
        let expected = json!({
            "customer": "cus_1", "items": [{"price": "a"}, {"price": "b"}],
            "expand": ["x.y", "z"], "metadata": {"7": "seven"},
        });
        assert_eq!(parsed, expected);
    }

    #[test]
    fn what_is_encoded_is_parsed_again() {
        let parameters = json!({"a": {"b": ["1 & 2", {"c": "ü"}]}, "d": "e"});
        assert_eq!(parse(encode(&parameters).as_bytes()), parameters);
    }
}
