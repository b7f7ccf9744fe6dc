//! What the tests log in with: an app on a phone, and the browser that it opens.

use control_plane::audit::Actor;
use control_plane::oauth::{Client, RedirectUri, add_client};
use oauth2::basic::BasicClient;
use oauth2::{
    AuthUrl, ClientId, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, RedirectUrl,
    RevocationUrl, TokenUrl,
};
use reqwest::{Method, StatusCode, Url};
use tests::TestApp;
use tests::api::{PASSWORD, Reply};

use crate::mfa::EMAIL;

pub(super) const ISSUER: &str = "https://vpn.example.org";
pub(super) const CLIENT: &str = "org.example.app";
pub(super) const CALLBACK: &str = "org.example.app:/callback";
/// The pair of RFC 7636, appendix B.
pub(super) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(super) const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

pub(super) type Library =
    BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointSet, EndpointSet>;

/// A phone: the app's HTTP, and the browser in which its owner logs in.
pub(super) struct Phone {
    http: reqwest::Client,
    base: String,
}

impl Phone {
    /// A plane with one app and one person, and a phone. The phone knows the plane by its issuer.
    pub(super) async fn with_plane() -> (TestApp, Self) {
        let app = TestApp::with(|variables| {
            variables.insert("PUBLIC_URL".to_owned(), ISSUER.to_owned());
        })
        .await;
        register(&app, CLIENT, &[CALLBACK, "http://127.0.0.1/callback"]).await;
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        let base = app.url().to_owned();
        (app, Self { http, base })
    }

    pub(super) async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.expect("the plane answers");
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.expect("the answer ends").to_vec();
        Reply {
            status,
            headers,
            body,
        }
    }

    pub(super) fn request(&self, method: Method, url: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, url.replacen(ISSUER, &self.base, 1))
    }

    pub(super) async fn get(&self, url: &str) -> Reply {
        self.send(self.request(Method::GET, url)).await
    }

    pub(super) async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let url = format!("{ISSUER}{path}");
        let body = Url::parse_with_params(&url, fields).expect("a URL");
        let request = self
            .request(Method::POST, &url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.query().unwrap_or_default().to_owned());
        self.send(request).await
    }

    /// What the library sends.
    pub(super) async fn call(&self, request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
        let (parts, body) = request.into_parts();
        let request = self.request(parts.method, &parts.uri.to_string());
        let reply = self.send(request.headers(parts.headers).body(body)).await;
        let mut response = HttpResponse::new(reply.body);
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        Ok(response)
    }

    /// The library as it sets itself up from what the service says of itself.
    pub(super) async fn library(&self, redirect_uri: &str) -> Library {
        let url = format!("{ISSUER}/.well-known/oauth-authorization-server");
        let metadata = self.get(&url).await.expect(200).json();
        assert_eq!(metadata["issuer"], ISSUER);
        let at = |name: &str| metadata[name].as_str().expect("an endpoint").to_owned();
        BasicClient::new(ClientId::new(CLIENT.to_owned()))
            .set_auth_uri(AuthUrl::new(at("authorization_endpoint")).expect("a URL"))
            .set_token_uri(TokenUrl::new(at("token_endpoint")).expect("a URL"))
            .set_revocation_url(RevocationUrl::new(at("revocation_endpoint")).expect("a URL"))
            .set_redirect_uri(RedirectUrl::new(redirect_uri.to_owned()).expect("a URL"))
    }

    /// Opens the page and fills in its form, with whatever the page put into it.
    pub(super) async fn log_in(&self, url: &str, password: &str, otp: &str) -> Reply {
        let page = self.get(url).await.expect(200).text();
        let hidden = hidden_fields(&page);
        let mut fields: Vec<_> = hidden
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        fields.extend([("email", EMAIL), ("password", password), ("otp", otp)]);
        self.form("/oauth/authorize", &fields).await
    }

    /// A code for this request, for the person with the known password.
    pub(super) async fn code(&self, changes: &[(&str, &str)]) -> String {
        let url = authorize_url(changes);
        let redirect = self.log_in(&url, PASSWORD, "").await;
        query_of(&redirect, "code").expect("a code")
    }

    pub(super) async fn exchange(&self, code: &str, changes: &[(&str, &str)]) -> Reply {
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", CLIENT),
            ("redirect_uri", CALLBACK),
            ("code", code),
            ("code_verifier", VERIFIER),
        ];
        self.form("/oauth/token", &changed(&fields, changes)).await
    }
}

pub(super) async fn register(app: &TestApp, id: &str, uris: &[&str]) {
    let uris = uris
        .iter()
        .map(|uri| RedirectUri::parse(uri).expect("a redirect URI"));
    let client = Client::new(id.to_owned(), "Example <App>".to_owned(), uris.collect());
    let mut connection = app.db().connect().await;
    add_client(&mut connection, &client.expect("a client"), Actor::Cli)
        .await
        .expect("it is new");
}

/// The fields with some others in their places; an empty value leaves one out.
pub(super) fn changed<'a>(
    fields: &[(&'a str, &'a str)],
    changes: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let is_changed = |name: &str| changes.iter().any(|(changed, _)| *changed == name);
    let kept = fields.iter().filter(|(name, _)| !is_changed(name));
    let new = changes.iter().filter(|(_, value)| !value.is_empty());
    kept.chain(new).copied().collect()
}

pub(super) fn authorize_url(changes: &[(&str, &str)]) -> String {
    let fields = [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", CALLBACK),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("state", "s t&te"),
    ];
    let url = format!("{ISSUER}/oauth/authorize");
    Url::parse_with_params(&url, changed(&fields, changes))
        .expect("a URL")
        .into()
}

/// The hidden fields of the page's form, as a browser reads them.
pub(super) fn hidden_fields(page: &str) -> Vec<(&str, String)> {
    let attribute = |tag: &'static str, text: &'_ str| -> Option<(usize, usize)> {
        let start = text.find(tag)? + tag.len();
        Some((start, start + text[start..].find('"')?))
    };
    page.split("<input type=\"hidden\"")
        .skip(1)
        .map(|text| {
            let (start, end) = attribute("name=\"", text).expect("a name");
            let name = &text[start..end];
            let (start, end) = attribute("value=\"", text).expect("a value");
            (name, unescaped(&text[start..end]))
        })
        .collect()
}

pub(super) fn unescaped(text: &str) -> String {
    [
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#60;", "<"),
        ("&#62;", ">"),
        ("&#38;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// A parameter of where the reply leads.
#[track_caller]
pub(super) fn query_of(reply: &Reply, name: &str) -> Option<String> {
    assert_eq!(reply.status, StatusCode::SEE_OTHER, "{}", reply.text());
    let location = Url::parse(reply.header("location").expect("a location")).expect("a URL");
    let pair = location.query_pairs().find(|(found, _)| found == name);
    pair.map(|(_, value)| value.into_owned())
}
