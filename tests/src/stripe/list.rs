//! Pages of a list.

use serde_json::{Value, json};

use super::failure::Failure;
use super::store::{number, text};

/// `items`, the newest first, cut by `limit`, `starting_after`, `ending_before` and `created`.
pub(super) fn page(mut items: Vec<Value>, url: &str, parameters: &Value) -> Result<Value, Failure> {
    items.retain(|it| is_made_within(number(it, "created"), &parameters["created"]));
    let limit = match parameters["limit"].as_str() {
        None => 10,
        Some(limit) => limit.parse().unwrap_or(0),
    };
    if !(1..=100).contains(&limit) {
        return Err(Failure::invalid("limit", "limit must be from 1 to 100"));
    }
    let position = |name: &str| match parameters[name].as_str() {
        None => Ok(None),
        Some(id) => match items.iter().position(|it| text(it, "id") == id) {
            Some(index) => Ok(Some(index)),
            None => Err(Failure::coded(
                name,
                "resource_missing",
                &format!("No such object: '{id}'"),
            )),
        },
    };
    let (after, before) = (position("starting_after")?, position("ending_before")?);
    let (data, has_more): (Vec<Value>, bool) = if let Some(end) = before {
        let start = end.saturating_sub(limit);
        let data = items.drain(start..end).collect();
        (data, start > 0)
    } else {
        let start = after.map_or(0, |index| index + 1);
        let has_more = items.len() > start + limit;
        (
            items.into_iter().skip(start).take(limit).collect(),
            has_more,
        )
    };
    Ok(json!({"object": "list", "url": url, "has_more": has_more, "data": data}))
}

/// Whether a field has the value of a filter, which is always a text.
#[must_use]
pub(super) fn is_equal(field: &Value, wanted: &Value) -> bool {
    match field {
        Value::String(_) | Value::Null => field == wanted,
        other => Some(other.to_string().as_str()) == wanted.as_str(),
    }
}

fn is_made_within(created: i64, bounds: &Value) -> bool {
    let Some(bounds) = bounds.as_object() else {
        return bounds.is_null() || bounds.as_str() == Some(created.to_string().as_str());
    };
    let holds = |(name, bound): (&String, &Value)| {
        let bound = bound.as_str().and_then(|it| it.parse::<i64>().ok());
        match (name.as_str(), bound) {
            ("gt", Some(bound)) => created > bound,
            ("gte", Some(bound)) => created >= bound,
            ("lt", Some(bound)) => created < bound,
            ("lte", Some(bound)) => created <= bound,
            _ => false,
        }
    };
    bounds.iter().all(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(answer: &Value) -> Vec<&str> {
        let data = answer["data"].as_array().unwrap();
        data.iter().map(|it| text(it, "id")).collect()
    }

    #[test]
    fn pages_meet_without_gap_or_overlap() {
        let items: Vec<_> = (0..5)
            .map(|it| json!({"id": format!("x{it}"), "created": it}))
            .collect();
        let read = |parameters: Value| page(items.clone(), "/v1/x", &parameters).unwrap();
        let first = read(json!({"limit": "2"}));
        assert_eq!(
            (ids(&first), first["has_more"] == true),
            (vec!["x0", "x1"], true)
        );
        let last = read(json!({"limit": "3", "starting_after": "x1"}));
        assert_eq!(
            (ids(&last), last["has_more"] == true),
            (vec!["x2", "x3", "x4"], false)
        );
        let back = read(json!({"limit": "2", "ending_before": "x3"}));
        assert_eq!(ids(&back), vec!["x1", "x2"]);
        assert_eq!(ids(&read(json!({"created": {"gte": "4"}}))), vec!["x4"]);
        assert!(page(items.clone(), "/v1/x", &json!({"starting_after": "y"})).is_err());
        assert!(page(items, "/v1/x", &json!({"limit": "101"})).is_err());
    }
}
