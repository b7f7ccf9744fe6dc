//! `/admin/plans`

use actix_web::{HttpRequest, HttpResponse, delete, get, post, put, web};
use utoipa::ToSchema;

use super::catalogue::{self, By, PriceChange};
use super::plan::{Period, Plan};
use super::store;
use super::wire::PlanBody;
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::permission::{ReadPlans, WritePlans};
use crate::http::{Allowed, Page, PageQuery, RequestId, ValidJson, ValidQuery};

/// A plan as operators see it.
#[derive(Debug, serde::Serialize, ToSchema)]
#[schema(as = ManagedPlan)]
pub(super) struct ManagedPlan {
    #[schema(example = "premium_monthly")]
    id: String,
    billing_period: Period,
    #[schema(example = "Premium Monthly")]
    name: String,
    #[schema(example = 9.99)]
    price: f64,
    #[schema(example = "USD")]
    currency: String,
    #[schema(example = json!(["unlimited_bandwidth"]))]
    features: Vec<String>,
    streaming_support: bool,
    max_devices: i32,
    max_connections: i32,
    /// Servers up to this tier.
    tier: i16,
    /// Null for no limit.
    download_mbps: Option<i32>,
    /// Null for no limit.
    upload_mbps: Option<i32>,
    /// Bytes a month in both directions together; null for no limit.
    quota_bytes: Option<i64>,
    trial_days: i32,
    /// False once it was withdrawn.
    is_offered: bool,
    /// Whether it has a price at Stripe of its own; otherwise the configuration's is used.
    has_stripe_price: bool,
}

impl From<Plan> for ManagedPlan {
    fn from(plan: Plan) -> Self {
        let terms = plan.terms;
        Self {
            id: plan.id,
            billing_period: plan.period,
            name: terms.name,
            price: terms.price.number(),
            currency: terms.price.currency.to_string(),
            features: terms.features,
            streaming_support: terms.streaming_support,
            max_devices: terms.max_devices,
            max_connections: terms.max_connections,
            tier: terms.tier,
            download_mbps: terms.download_mbps,
            upload_mbps: terms.upload_mbps,
            quota_bytes: terms.quota_bytes,
            trial_days: terms.trial_days,
            is_offered: terms.is_offered,
            has_stripe_price: plan.has_price,
        }
    }
}

/// What makes a plan.
#[derive(Debug, ToSchema)]
#[schema(as = NewPlan)]
#[expect(
    dead_code,
    reason = "for the document: the handler asks the terms for both"
)]
struct NewPlan {
    #[schema(example = "premium_monthly")]
    id: String,
    billing_period: Period,
    #[serde(flatten)]
    terms: PlanBody,
}

/// All plans by id, withdrawn ones too.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(PageQuery),
    responses((status = 200, description = "One page of plans", body = Page<ManagedPlan>)),
)]
#[get("/admin/plans")]
pub(super) async fn list_all_plans(
    request: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<ReadPlans>,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<web::Json<Page<ManagedPlan>>, ApiError> {
    let (plans, total) = {
        let mut connection = state.db().get().await?;
        store::page(&mut connection, (asked.offset(), asked.limit())).await?
    };
    let data = plans.into_iter().map(ManagedPlan::from).collect();
    let (path, query) = (request.path(), request.query_string());
    Ok(web::Json(Page::new(data, total, asked, path, query)))
}

/// Adds a plan. `id` and `billing_period` are needed, and stay.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    request_body = NewPlan,
    responses(
        (status = 201, description = "The plan", body = ManagedPlan),
        (status = 409, description = "PLAN_EXISTS, CONFLICT", body = ErrorEnvelope),
    ),
)]
#[post("/admin/plans")]
pub(super) async fn create_plan(
    state: web::Data<AppState>,
    allowed: Allowed<WritePlans>,
    request: RequestId,
    ValidJson(body): ValidJson<PlanBody>,
) -> Result<HttpResponse, ApiError> {
    let by = By {
        actor: &allowed.actor,
        request: &request,
    };
    let (id, period) = body.identity()?;
    let price = body.price_change();
    let plan = Plan {
        id,
        period,
        has_price: matches!(price, PriceChange::Set(_)),
        terms: body.terms()?,
    };
    catalogue::create(&state, &plan, &price, by).await?;
    Ok(HttpResponse::Created().json(ManagedPlan::from(plan)))
}

/// Replaces what a plan costs and allows, for whoever has it too; live connections follow. Its id and period
/// stay, and so does its price at Stripe where none is given. An empty one takes it away.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, description = "The plan's id", example = "premium_monthly")),
    request_body = PlanBody,
    responses(
        (status = 200, description = "The plan as it is now", body = ManagedPlan),
        (status = 404, description = "PLAN_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "CONFLICT", body = ErrorEnvelope),
    ),
)]
#[put("/admin/plans/{id}")]
pub(super) async fn edit_plan(
    state: web::Data<AppState>,
    allowed: Allowed<WritePlans>,
    request: RequestId,
    path: web::Path<String>,
    ValidJson(body): ValidJson<PlanBody>,
) -> Result<web::Json<ManagedPlan>, ApiError> {
    let by = By {
        actor: &allowed.actor,
        request: &request,
    };
    let (terms, price) = (body.terms()?, body.price_change());
    let is_same = |plan: &Plan| body.is_of(plan);
    let plan = catalogue::edit(&state, &path, terms, &price, is_same, by).await?;
    Ok(web::Json(plan.into()))
}

/// Withdraws a plan: nobody can buy it any more, and who has it keeps it.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, description = "The plan's id", example = "premium_monthly")),
    responses(
        (status = 204, description = "It is not offered any more"),
        (status = 404, description = "PLAN_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "CONFLICT", body = ErrorEnvelope),
    ),
)]
#[delete("/admin/plans/{id}")]
pub(super) async fn withdraw_plan(
    state: web::Data<AppState>,
    allowed: Allowed<WritePlans>,
    request: RequestId,
    path: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let by = By {
        actor: &allowed.actor,
        request: &request,
    };
    catalogue::withdraw(&state, &path, by).await?;
    Ok(HttpResponse::NoContent().finish())
}
