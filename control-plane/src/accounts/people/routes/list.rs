use actix_web::{HttpRequest, get, web};
use garde::Validate;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::accounts::Role;
use crate::accounts::people::store::{self, Filter};
use crate::accounts::people::views::SummaryView;
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::permission::ReadUsers;
use crate::http::text::plain;
use crate::http::{Allowed, Page, PageQuery, ValidQuery};

/// Every filter that is given has to hold.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PeopleQuery {
    /// A part of the address, in any case.
    #[garde(inner(length(chars, max = 254), custom(plain)))]
    #[param(
        max_length = 254,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
        example = "@example.org"
    )]
    email: Option<String>,
    /// Only people of this role.
    #[garde(skip)]
    #[param(inline)]
    role: Option<Role>,
    /// Only people who are not suspended, or only those who are.
    #[garde(skip)]
    is_active: Option<bool>,
}

/// People, the newest first.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(PeopleQuery, PageQuery),
    responses((status = 200, description = "One page of people", body = Page<SummaryView>)),
)]
#[get("/users")]
pub(super) async fn list_people(
    request: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<ReadUsers>,
    ValidQuery(query): ValidQuery<PeopleQuery>,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<web::Json<Page<SummaryView>>, ApiError> {
    let filter = Filter {
        email: query.email,
        role: query.role,
        is_active: query.is_active,
    };
    let (people, total) = {
        let mut connection = state.db().get().await?;
        store::list(&mut connection, &filter, (asked.offset(), asked.limit())).await?
    };
    let data = people.into_iter().map(Into::into).collect();
    let (path, query) = (request.path(), request.query_string());
    Ok(web::Json(Page::new(data, total, asked, path, query)))
}
