use actix_web::{HttpRequest, get, web};
use garde::Validate;
use serde::Deserialize;
use utoipa::IntoParams;

use super::views::ManagedView;
use super::wire::StatusWord;
use crate::app::AppState;
use crate::error::ApiError;
use crate::fleet::store::ServerFilter;
use crate::http::permission::ReadServers;
use crate::http::text::plain;
use crate::http::{Allowed, Page, PageQuery, ValidQuery};

/// Every filter that is given has to hold.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ManagedQuery {
    /// The operator's word.
    #[garde(skip)]
    #[param(inline)]
    status: Option<StatusWord>,
    /// The whole name, in any case.
    #[garde(inner(length(chars, max = 253), custom(plain)))]
    #[param(
        max_length = 253,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
        example = "fra1.example.net"
    )]
    hostname: Option<String>,
}

/// Every server with its node, by host name.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(ManagedQuery, PageQuery),
    responses((status = 200, description = "One page of servers", body = Page<ManagedView>)),
)]
#[get("/admin/servers")]
pub(super) async fn list_managed(
    request: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<ReadServers>,
    ValidQuery(query): ValidQuery<ManagedQuery>,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<web::Json<Page<ManagedView>>, ApiError> {
    let filter = ServerFilter {
        status: query.status.map(Into::into),
        hostname: query.hostname,
    };
    let page = (asked.offset(), asked.limit());
    let (servers, total) = state.fleet().managed_page(&filter, page).await?;
    let data = servers.into_iter().map(ManagedView::line).collect();
    let (path, query) = (request.path(), request.query_string());
    Ok(web::Json(Page::new(data, total, asked, path, query)))
}
