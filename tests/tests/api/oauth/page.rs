//! The page on which a person lets an app in, and where it sends them.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_shows_the_page_again() {
    let (app, phone) = Phone::with_plane().await;
    let _ = app.client().sign_up(EMAIL).await;
    let page = phone
        .log_in(&authorize_url(&[]), "not it at all", "")
        .await
        .expect(401);
    let text = page.text();
    assert!(text.contains("Address or password is wrong"), "{text}");
    assert!(
        text.contains(EMAIL) && !text.contains("not it at all"),
        "{text}"
    );
    assert_eq!(hidden_fields(&text).len(), 6, "the form can be sent again");
    let codes = "SELECT count(*) FROM oauth_codes";
    assert_eq!(app.db().number(codes).await, 0);
    app.db().execute("UPDATE users SET is_active = false").await;
    let page = phone
        .log_in(&authorize_url(&[]), PASSWORD, "")
        .await
        .expect(403);
    assert!(page.text().contains("suspended"), "{}", page.text());
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_the_app_and_runs_nothing() {
    let (app, phone) = Phone::with_plane().await;
    let hostile = "\"><script>alert(1)</script>";
    let page = phone
        .get(&authorize_url(&[("state", hostile)]))
        .await
        .expect(200);
    let text = page.text();
    assert!(
        text.contains("Example &#60;App&#62;") && text.contains(CALLBACK),
        "{text}"
    );
    assert!(!text.contains("<script"), "{text}");
    let state = hidden_fields(&text)
        .into_iter()
        .find(|(name, _)| *name == "state");
    assert_eq!(state.expect("a state").1, hostile);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(
        policy.contains("form-action 'self' org.example.app:;"),
        "{policy}"
    );
    assert!(page.header("set-cookie").is_none());
    let typed = changed(&[("email", hostile), ("password", "x")], &[]);
    let hidden = hidden_fields(&text);
    let mut fields: Vec<_> = hidden
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    fields.extend(typed);
    let again = phone.form("/oauth/authorize", &fields).await.expect(401);
    assert!(!again.text().contains("<script"), "{}", again.text());

    let cancel = text
        .split("<a href=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let cancel = unescaped(cancel.expect("a way out"));
    assert!(
        cancel.starts_with(&format!("{CALLBACK}?error=access_denied&")),
        "{cancel}"
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_to_a_place_that_is_not_the_apps() {
    let (app, phone) = Phone::with_plane().await;
    let table: [(&[(&str, &str)], u16); 8] = [
        (&[("client_id", "nobody")], 404),
        (&[("client_id", "")], 404),
        (&[("client_id", "\0")], 404),
        (
            &[
                ("client_id", "\"><script>"),
                ("redirect_uri", "javascript:alert(1)"),
            ],
            404,
        ),
        (&[("client_id", "a"), ("client_id", "b")], 400),
        (&[("redirect_uri", "https://evil.example/callback")], 400),
        (&[("redirect_uri", "org.example.app:/callback/more")], 400),
        (&[("redirect_uri", "")], 400),
    ];
    for (changes, status) in table {
        let url = authorize_url(changes);
        let page = phone.get(&url).await;
        let parsed = Url::parse(&url).expect("a URL");
        let query: Vec<_> = parsed.query_pairs().collect();
        let mut fields: Vec<_> = query
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        fields.extend([("email", EMAIL), ("password", PASSWORD)]);
        let posted = phone.form("/oauth/authorize", &fields).await;
        for reply in [page, posted] {
            let reply = reply.expect(status);
            assert!(reply.header("location").is_none(), "{changes:?}");
            let text = reply.text();
            assert!(text.contains("This app cannot sign you in"), "{text}");
            assert!(!text.contains("<script"), "{text}");
        }
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_is_told_what_is_wrong() {
    let (app, phone) = Phone::with_plane().await;
    let table = [
        (("code_challenge_method", "plain"), "invalid_request"),
        (("code_challenge_method", ""), "invalid_request"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("response_type", "token"), "unsupported_response_type"),
        (("response_type", ""), "invalid_request"),
    ];
    for (change, error) in table {
        let reply = phone.get(&authorize_url(&[change])).await;
        assert_eq!(
            query_of(&reply, "error").as_deref(),
            Some(error),
            "{change:?}"
        );
        assert_eq!(query_of(&reply, "state").as_deref(), Some("s t&te"));
        assert_eq!(query_of(&reply, "iss").as_deref(), Some(ISSUER));
        assert!(query_of(&reply, "code").is_none());
    }
    app.finish(&[]).await;
}
