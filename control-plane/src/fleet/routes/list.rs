use std::time::Instant;

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, get, web};
use chrono::Utc;
use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::views::{ServerView, page_response};
use crate::app::AppState;
use crate::error::ApiError;
use crate::fleet::view::is_same;
use crate::fleet::{FleetView, Server};
use crate::http::CurrentUser;
use crate::http::input::parse_query;
use crate::http::page::{PageLinks, PageQuery};

/// Every filter that is given has to hold; texts are compared without regard to case.
#[derive(Debug, Clone, Default, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// A country's name or ISO code.
    #[garde(inner(length(chars, max = 100)))]
    #[param(max_length = 100, nullable = false, example = "Germany")]
    country: Option<String>,
    /// A city's name.
    #[garde(inner(length(chars, max = 100)))]
    #[param(max_length = 100, nullable = false, example = "Frankfurt")]
    city: Option<String>,
    /// Location, country, ISO code or city: what connect takes.
    #[garde(inner(length(chars, max = 100)))]
    #[param(max_length = 100, nullable = false, example = "eu-central")]
    location: Option<String>,
    /// A streaming service that works there; `true` for any, `false` for none.
    #[garde(inner(length(chars, max = 100)))]
    #[param(max_length = 100, nullable = false)]
    streaming: Option<String>,
    /// A protocol that it speaks, such as `wireguard`.
    #[garde(inner(length(chars, max = 100)))]
    #[param(max_length = 100, nullable = false, example = "wireguard")]
    protocol: Option<String>,
    /// Something that it has, such as `p2p`.
    #[garde(inner(length(chars, max = 100)))]
    #[param(max_length = 100, nullable = false)]
    feature: Option<String>,
    /// Servers that a plan of this tier may use.
    #[garde(inner(range(min = 0)))]
    #[param(minimum = 0, maximum = 32_767, nullable = false)]
    tier: Option<i16>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerList {
    servers: Vec<ServerView>,
    /// How many match, over all pages.
    total: u64,
    page: u32,
    per_page: u32,
    links: PageLinks,
}

/// The servers, by hostname.
#[utoipa::path(
    tag = "servers",
    security(("bearer" = [])),
    params(Filter, PageQuery),
    responses((status = 200, description = "One page of servers", body = ServerList)),
)]
#[get("/servers")]
pub(super) async fn list_servers(
    request: HttpRequest,
    state: web::Data<AppState>,
    _: CurrentUser,
) -> Result<HttpResponse, ApiError> {
    let view = state.fleet().view();
    let (path, query) = (request.path(), request.query_string());
    let key = request
        .uri()
        .path_and_query()
        .map_or(path, |it| it.as_str());
    let page = view.pages().get(key, Instant::now(), || {
        let list = page(&view, path, query)?;
        serde_json::to_vec(&list)
            .map(Bytes::from)
            .map_err(ApiError::internal)
    })?;
    Ok(page_response(page))
}

fn page(view: &FleetView, path: &str, query: &str) -> Result<ServerList, ApiError> {
    let filter: Filter = parse_query(query)?;
    let asked: PageQuery = parse_query(query)?;
    let now = Utc::now();
    let among = filter
        .place()
        .map_or(view.servers(), |place| view.at(place));
    let matching: Vec<_> = among.iter().filter(|it| filter.takes(it)).collect();
    let first = usize::try_from(asked.offset()).unwrap_or(usize::MAX);
    let count = usize::try_from(asked.per_page()).unwrap_or(usize::MAX);
    let (page, per_page) = (asked.page(), asked.per_page());
    let total = u64::try_from(matching.len()).unwrap_or(u64::MAX);
    let servers = matching.into_iter().skip(first).take(count);
    Ok(ServerList {
        servers: servers.map(|it| ServerView::new(it, now)).collect(),
        total,
        page,
        per_page,
        links: PageLinks::new(path, query, page, per_page, total),
    })
}

impl Filter {
    /// A place at which every server is that it takes.
    fn place(&self) -> Option<&str> {
        let places = [&self.country, &self.city, &self.location];
        places.into_iter().find_map(Option::as_deref)
    }

    fn takes(&self, server: &Server) -> bool {
        let is = |wanted: &Option<String>, value: &str| {
            wanted.as_ref().is_none_or(|wanted| is_same(value, wanted))
        };
        let has = |wanted: &Option<String>, values: &[String]| {
            let mut values = values.iter();
            wanted
                .as_ref()
                .is_none_or(|wanted| values.any(|value| is_same(value, wanted)))
        };
        (is(&self.country, &server.country) || is(&self.country, &server.country_code))
            && is(&self.city, &server.city)
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::fleet::Live;
    use crate::fleet::view::tests::profile;

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
}
