use actix_web::{HttpRequest, get, web};
use chrono::Utc;
use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::views::ServerView;
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::fleet::Server;
use crate::http::{CurrentUser, ValidQuery};

/// Every filter that is given has to hold; texts are compared without regard to case.
#[derive(Debug, Clone, Default, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// A country's name or ISO code.
    #[garde(length(max = 100))]
    country: Option<String>,
    #[garde(length(max = 100))]
    city: Option<String>,
    /// Location, country, ISO code or city: what connect takes.
    #[garde(length(max = 100))]
    location: Option<String>,
    /// A streaming service that works there; `true` for any, `false` for none.
    #[garde(length(max = 100))]
    streaming: Option<String>,
    #[garde(length(max = 100))]
    protocol: Option<String>,
    #[garde(length(max = 100))]
    feature: Option<String>,
    /// Servers that a plan of this tier may use.
    #[garde(range(min = 0))]
    tier: Option<i16>,
    /// From 1.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(default = 1)]
    page: Option<usize>,
    /// At most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(default = 20)]
    per_page: Option<usize>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerList {
    servers: Vec<ServerView>,
    /// How many match, over all pages.
    total: usize,
    page: usize,
    per_page: usize,
    links: Links,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Links {
    #[serde(rename = "self")]
    this: String,
    next: Option<String>,
    prev: Option<String>,
}

/// The servers, by hostname.
#[utoipa::path(
    tag = "servers",
    security(("bearer" = [])),
    params(Filter),
    responses(
        (status = 200, description = "One page of servers", body = ServerList),
        (status = 400, description = "A parameter is not valid", body = ErrorEnvelope),
        (status = 401, description = "No valid access token", body = ErrorEnvelope),
    ),
)]
#[get("/servers")]
pub(super) async fn list(
    request: HttpRequest,
    state: web::Data<AppState>,
    _: CurrentUser,
    filter: ValidQuery<Filter>,
) -> Result<web::Json<ServerList>, ApiError> {
    let filter = filter.0;
    let (page, per_page) = (filter.page.unwrap_or(1), filter.per_page.unwrap_or(20));
    let (view, now) = (state.fleet().view(), Utc::now());
    let matching: Vec<_> = view
        .servers()
        .iter()
        .filter(|it| filter.takes(it))
        .collect();
    let first = (page - 1).saturating_mul(per_page);
    let servers = matching.iter().skip(first).take(per_page);
    Ok(web::Json(ServerList {
        servers: servers.map(|server| ServerView::new(server, now)).collect(),
        total: matching.len(),
        page,
        per_page,
        links: Links::new(
            request.path(),
            request.query_string(),
            page,
            per_page,
            matching.len(),
        ),
    }))
}

impl Filter {
    fn takes(&self, server: &Server) -> bool {
        let is = |wanted: &Option<String>, values: &[&String]| {
            wanted.as_ref().is_none_or(|wanted| {
                let wanted = wanted.to_lowercase();
                values.iter().any(|value| value.to_lowercase() == wanted)
            })
        };
        let has = |wanted: &Option<String>, values: &Vec<String>| {
            is(wanted, &values.iter().collect::<Vec<_>>())
        };
        is(&self.country, &[&server.country, &server.country_code])
            && is(&self.city, &[&server.city])
            && self
                .location
                .as_ref()
                .is_none_or(|place| server.is_at(place))
            && match self.streaming.as_deref() {
                Some("true") => !server.streaming_services.is_empty(),
                Some("false") => server.streaming_services.is_empty(),
                _ => has(&self.streaming, &server.streaming_services),
            }
            && has(&self.protocol, &server.protocols)
            && has(&self.feature, &server.features)
            && self.tier.is_none_or(|tier| server.tier <= tier)
    }
}

impl Links {
    /// The same query on the neighbouring pages.
    fn new(path: &str, query: &str, page: usize, per_page: usize, total: usize) -> Self {
        let to = |page: usize| {
            let kept = query.split('&').filter(|pair| {
                !pair.is_empty() && !pair.starts_with("page=") && !pair.starts_with("per_page=")
            });
            let paging = [format!("page={page}"), format!("per_page={per_page}")];
            let pairs: Vec<&str> = kept.chain(paging.iter().map(String::as_str)).collect();
            format!("{path}?{}", pairs.join("&"))
        };
        Self {
            this: to(page),
            next: (page.saturating_mul(per_page) < total).then(|| to(page + 1)),
            prev: (page > 1).then(|| to(page - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::fleet::Live;
    use crate::fleet::view::tests::profile;
    use crate::http::input::parse_query;

    #[rstest]
    #[case("", true)]
    #[case("country=germany", true)]
    #[case("country=de", true)]
    #[case("country=frankfurt", false)]
    #[case("city=Frankfurt", true)]
    #[case("location=EU-central", true)]
    #[case("location=de", true)]
    #[case("streaming=NETFLIX", true)]
    #[case("streaming=hulu", false)]
    #[case("streaming=true", true)]
    #[case("streaming=false", false)]
    #[case("protocol=wireguard", true)]
    #[case("protocol=openvpn", false)]
    #[case("feature=p2p", false)]
    #[case("tier=0", false)]
    #[case("tier=1", true)]
    #[case("country=de&city=Berlin", false)]
    fn filters(#[case] query: &str, #[case] takes: bool) {
        let mut profile = profile(1);
        profile.tier = 1;
        profile.streaming_services = vec!["netflix".to_owned()];
        let server = Server::new(profile, Live::default());
        let filter = parse_query::<Filter>(query).expect("a query");
        assert_eq!(filter.takes(&server), takes);
    }

    #[rstest]
    #[case::only_page(1, 20, 3, None, None)]
    #[case::first(1, 2, 3, Some("/s?tier=1&page=2&per_page=2"), None)]
    #[case::last(2, 2, 3, None, Some("/s?tier=1&page=1&per_page=2"))]
    #[case::exact(1, 3, 3, None, None)]
    fn links(
        #[case] page: usize,
        #[case] per_page: usize,
        #[case] total: usize,
        #[case] next: Option<&str>,
        #[case] prev: Option<&str>,
    ) {
        let links = Links::new("/s", "page=9&tier=1", page, per_page, total);
        assert_eq!((links.next.as_deref(), links.prev.as_deref()), (next, prev));
    }
}
