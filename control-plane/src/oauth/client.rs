//! The apps that may ask people for access. All are public: none could keep a secret.

use super::redirect_uri::RedirectUri;

const MAX_LENGTH: usize = 100;

/// A registered app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub id: String,
    /// What people read when it asks.
    pub name: String,
    pub redirect_uris: Vec<RedirectUri>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClient {
    #[error("an id has 1 to 100 letters, digits, dots, dashes and underscores")]
    Id,
    #[error("a name has 1 to 100 characters and no control characters")]
    Name,
    #[error("an app needs a redirect URI")]
    NoRedirectUri,
}

impl Client {
    pub fn new(
        id: String,
        name: String,
        redirect_uris: Vec<RedirectUri>,
    ) -> Result<Self, InvalidClient> {
        if !is_client_id(&id) {
            return Err(InvalidClient::Id);
        }
        let is_short = (1..=MAX_LENGTH).contains(&name.chars().count());
        if !is_short || name.trim().is_empty() || name.chars().any(char::is_control) {
            return Err(InvalidClient::Name);
        }
        if redirect_uris.is_empty() {
            return Err(InvalidClient::NoRedirectUri);
        }
        Ok(Self {
            id,
            name,
            redirect_uris,
        })
    }

    /// The URI that a request names, if it is one of the app's.
    pub(super) fn redirect_uri(&self, asked: &str) -> Option<RedirectUri> {
        let asked = RedirectUri::parse(asked).ok()?;
        let is_registered = self.redirect_uris.iter().any(|uri| asked.is(uri));
        is_registered.then_some(asked)
    }
}

/// Whether a client can have this id: anything else is not even looked up.
pub(super) fn is_client_id(text: &str) -> bool {
    (1..=MAX_LENGTH).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const URI: &str = "https://app.example.org/cb";

    fn client(id: &str, name: &str, uris: &[&str]) -> Result<Client, InvalidClient> {
        let uris = uris.iter().map(|uri| RedirectUri::parse(uri).unwrap());
        Client::new(id.to_owned(), name.to_owned(), uris.collect())
    }

    #[rstest]
    #[case("app", "App", &[URI], None)]
    #[case("org.example.app-1_x", "Ëxample", &[URI], None)]
    #[case("", "App", &[URI], Some(InvalidClient::Id))]
    #[case("an app", "App", &[URI], Some(InvalidClient::Id))]
    #[case("app\0", "App", &[URI], Some(InvalidClient::Id))]
    #[case(&"x".repeat(101), "App", &[URI], Some(InvalidClient::Id))]
    #[case("app", "", &[URI], Some(InvalidClient::Name))]
    #[case("app", "  ", &[URI], Some(InvalidClient::Name))]
    #[case("app", "A\u{202}\0", &[URI], Some(InvalidClient::Name))]
    #[case("app", &"x".repeat(101), &[URI], Some(InvalidClient::Name))]
    #[case("app", "App", &[], Some(InvalidClient::NoRedirectUri))]
    fn an_app_has_an_id_a_name_and_a_place(
        #[case] id: &str,
        #[case] name: &str,
        #[case] uris: &[&str],
        #[case] wrong: Option<InvalidClient>,
    ) {
        assert_eq!(client(id, name, uris).err(), wrong);
    }

    #[test]
    fn only_its_own_uris_are_an_apps() {
        let app = client("app", "App", &[URI, "http://127.0.0.1/cb"]).unwrap();
        assert!(app.redirect_uri(URI).is_some());
        let loopback = app.redirect_uri("http://127.0.0.1:4711/cb").unwrap();
        assert_eq!(loopback.as_str(), "http://127.0.0.1:4711/cb");
        for foreign in ["", "https://evil.example/cb", "http://127.0.0.1:4711/other"] {
            assert!(app.redirect_uri(foreign).is_none(), "{foreign}");
        }
    }
}
