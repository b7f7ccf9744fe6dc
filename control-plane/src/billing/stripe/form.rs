//! Parameters as Stripe takes them: pairs, whose names say how they nest (`items[0][price]`).

use form_urlencoded::Serializer;

#[derive(Clone, Default)]
pub struct Form(Vec<(String, String)>);

impl Form {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn put(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.0.push((name.into(), value.to_string()));
        self
    }

    /// An id, which shows itself to Stripe alone.
    #[must_use]
    pub fn id(self, name: impl Into<String>, id: impl AsRef<str>) -> Self {
        self.put(name, id.as_ref())
    }

    #[must_use]
    pub fn maybe(self, name: impl Into<String>, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.put(name, value),
            None => self,
        }
    }

    /// Asks for the whole of what would come as an id.
    #[must_use]
    pub fn expand(self, paths: &[&str]) -> Self {
        paths
            .iter()
            .fold(self, |form, path| form.put("expand[]", path))
    }

    #[must_use]
    pub fn encode(&self) -> String {
        Serializer::new(String::new())
            .extend_pairs(&self.0)
            .finish()
    }
}

impl std::fmt::Debug for Form {
    /// The names: values may be addresses.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_become_parameters() {
        let form = Form::new()
            .put("items[0][price]", "a&b=c")
            .maybe("none", None::<u8>)
            .put("amount", 5)
            .expand(&["data.customer"]);
        assert_eq!(
            form.encode(),
            "items%5B0%5D%5Bprice%5D=a%26b%3Dc&amount=5&expand%5B%5D=data.customer"
        );
        assert!(!format!("{form:?}").contains("a&b"));
    }
}
