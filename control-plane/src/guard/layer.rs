//! The layer around the handlers.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Once;
use std::time::Instant;

use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HeaderName, HeaderValue, RETRY_AFTER};
use chrono::Utc;
use shared::ids::UserId;

use super::group::Group;
use super::limiter::Asked;
use super::window::Standing;
use super::{Client, Guard, Lane, Subject, seconds_until};
use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::http::Answer;
use crate::http::current_user::bearer_of;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What a response says of its sender's limit.
#[derive(Debug, Clone, Copy)]
struct Budget {
    limit: u32,
    remaining: u32,
    reset_ms: u64,
}

/// The layer: refuses who is banned, floods or has no room, tells the rest how they stand, and takes note of
/// what fails as only guessing fails.
pub(crate) async fn protect(
    state: &AppState,
    lane: &Rc<Lane>,
    request: ServiceRequest,
    next: impl AsyncFnOnce(ServiceRequest) -> Answer,
) -> Answer {
    let guard = state.guard();
    let Some(peer) = request.peer_addr() else {
        return next(request).await;
    };
    let client = Client::of(
        peer.ip(),
        request.headers(),
        &state.config().http.trusted_proxies,
    );
    let group = Group::of(request.match_info().as_str());
    if guard.is_whitelisted(&client) {
        let mut response = next(request).await?;
        let limit = guard.limit_of(group).capacity();
        tell(
            &mut response,
            Budget {
                limit,
                remaining: limit,
                reset_ms: 0,
            },
        );
        return Ok(response);
    }
    if client.speaks_for_others && client.address.is_loopback() {
        warn_of_a_proxy();
    }
    let subject = Subject::of(client.address);
    if guard.config.detection_enabled
        && let Some(refusal) = banned(guard, client.address, subject)
    {
        metrics::counter!("guard_refused_total", "why" => "banned").increment(1);
        return Ok(refuse(request, refusal.0, refusal.1));
    }
    let budget = if guard.config.limits_enabled {
        let user = user_of(state, &request);
        let began = Instant::now();
        let windows = guard.windows(group, subject, user);
        let standings = lane.take(&windows).await;
        metrics::histogram!("guard_seconds").record(began.elapsed());
        let budget = budget(&windows, &standings);
        if let Some(wait) = standings.iter().filter_map(|it| it.wait_ms).max() {
            metrics::counter!("guard_refused_total", "why" => group.as_str()).increment(1);
            let seconds = wait.max(1).div_ceil(1000);
            let mut response = refuse(request, ApiError::new(Code::RateLimited), Some(seconds));
            if let Some(budget) = budget {
                tell(&mut response, budget);
            }
            return Ok(response);
        }
        budget
    } else {
        None
    };
    let shows_token = request.headers().contains_key(AUTHORIZATION);
    let response = next(request).await;
    let mut response = response?;
    if guard.config.detection_enabled && looks_like_guessing(&response, shows_token) {
        guard.failed(subject);
    }
    if let Some(budget) = budget {
        tell(&mut response, budget);
    }
    Ok(response)
}

/// Says once that all clients behind a proxy are one to us.
fn warn_of_a_proxy() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!(
            "guard.unknown_proxy: a proxy on this host forwards requests, which all count as one client's; \
             name it in TRUSTED_PROXIES"
        );
    });
}

/// Whether the sender is banned already, or by this very request.
fn banned(guard: &Guard, address: IpAddr, subject: Subject) -> Option<(ApiError, Option<u64>)> {
    let found = guard.bans.find(address).or_else(|| {
        guard
            .floods(subject)
            .then(|| guard.bans.find(address))
            .flatten()
    });
    let (_, until) = found?;
    Some((Code::AddressBanned.into(), until.map(seconds_until)))
}

/// Whose token the request shows, if it is good.
fn user_of(state: &AppState, request: &ServiceRequest) -> Option<UserId> {
    let claims = state.tokens().verify(bearer_of(request.headers())?).ok()?;
    (state.revocations().is_revoked(claims.session) != Some(true)).then_some(claims.user)
}

fn refuse(request: ServiceRequest, error: ApiError, wait: Option<u64>) -> ServiceResponse {
    let mut response = request.error_response(error);
    if let Some(seconds) = wait {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The window that runs out first, of those that are the sender's own.
fn budget(windows: &[Asked], standings: &[Standing]) -> Option<Budget> {
    let own = windows
        .iter()
        .zip(standings)
        .filter(|(it, _)| !it.key.is_shared());
    let budgets = own.map(|(asked, standing)| Budget {
        limit: asked.limit.capacity(),
        remaining: standing.remaining,
        reset_ms: standing.reset_ms,
    });
    budgets.min_by_key(|budget| budget.remaining)
}

fn tell(response: &mut ServiceResponse, budget: Budget) {
    let now = u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0);
    let reset = (now + budget.reset_ms).div_ceil(1000);
    let headers = response.headers_mut();
    headers.insert(LIMIT, HeaderValue::from(budget.limit));
    headers.insert(REMAINING, HeaderValue::from(budget.remaining));
    headers.insert(RESET, HeaderValue::from(reset));
}

/// Wrong passwords, tokens and links, and paths that are none: what people rarely do and scanners mostly.
fn looks_like_guessing(response: &ServiceResponse, shows_token: bool) -> bool {
    let error = response.response().error();
    let Some(error) = error.and_then(|error| error.as_error::<ApiError>()) else {
        return false;
    };
    match error.code() {
        Code::InvalidCredentials
        | Code::OtpInvalid
        | Code::WrongPassword
        | Code::LinkInvalid
        | Code::RefreshTokenInvalid
        | Code::RefreshTokenReused
        | Code::EnrolmentTokenInvalid => true,
        Code::Unauthorized => shows_token,
        Code::NotFound => response.request().match_pattern().is_none(),
        _ => false,
    }
}
