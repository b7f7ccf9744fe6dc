//! The layer around the handlers.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Once;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix_web::HttpMessage;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HeaderName, HeaderValue};
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

/// A request that may go on.
#[derive(Debug)]
struct Admitted {
    /// Who answers for it; nobody does for a whitelisted one.
    subject: Option<Subject>,
    budget: Option<Budget>,
}

/// A request that may not.
#[derive(Debug)]
struct Refusal {
    code: Code,
    /// Seconds after which it may.
    wait: Option<u64>,
    budget: Option<Budget>,
}

/// The layer: refuses who is banned, floods, is in a refused country or has no room, tells the rest how they
/// stand, and takes note of what fails as only guessing fails.
pub(crate) async fn protect(
    state: &AppState,
    lane: &Rc<Lane>,
    request: ServiceRequest,
    next: impl AsyncFnOnce(ServiceRequest) -> Answer,
) -> Answer {
    let Admitted { subject, budget } = match admit(state, lane, &request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return Ok(refusal.answer(request)),
    };
    let mut response = next(request).await?;
    let guard = state.guard();
    if let Some(subject) = subject
        && guard.config.detection_enabled
        && looks_like_guessing(&response)
    {
        guard.failed(subject);
    }
    if let Some(budget) = budget {
        budget.tell(&mut response);
    }
    Ok(response)
}

async fn admit(
    state: &AppState,
    lane: &Rc<Lane>,
    request: &ServiceRequest,
) -> Result<Admitted, Refusal> {
    let guard = state.guard();
    let group = Group::of(request.match_info().as_str());
    let proxies = &state.config().http.trusted_proxies;
    let client = request
        .peer_addr()
        .map(|peer| Client::of(peer.ip(), request.headers(), proxies))
        .filter(|client| !guard.is_whitelisted(client));
    let Some(client) = client else {
        return Ok(Admitted {
            subject: None,
            budget: Some(Budget::full(guard.limit_of(group).capacity())),
        });
    };
    let began = Instant::now();
    if client.speaks_for_others && client.address.is_loopback() {
        warn_of_a_proxy();
    }
    let subject = Subject::of(client.address);
    unless_unwelcome(guard, group, client.address, subject)?;
    if !guard.config.limits_enabled {
        return Ok(Admitted {
            subject: Some(subject),
            budget: None,
        });
    }
    let windows = guard.windows(group, subject, user_of(state, request));
    let standings = lane.take(&windows).await;
    let budget = budget(&windows, &standings);
    if let Some(wait) = standings.iter().filter_map(|it| it.wait_ms).max() {
        metrics::counter!("guard_refused_total", "why" => group.as_str()).increment(1);
        guard.census.refused(group, subject);
        guard.alerts.refused();
        return Err(Refusal {
            code: Code::RateLimited,
            wait: Some(wait.max(1).div_ceil(1000)),
            budget,
        });
    }
    guard.census.passed(group, began.elapsed());
    Ok(Admitted {
        subject: Some(subject),
        budget,
    })
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

/// Whether the sender is refused whatever they ask. A flood from a refused country is a flood: it is counted before.
fn unless_unwelcome(
    guard: &Guard,
    group: Group,
    address: IpAddr,
    subject: Subject,
) -> Result<(), Refusal> {
    if guard.config.detection_enabled {
        unless_banned(guard, address, subject).inspect_err(|_| {
            metrics::counter!("guard_refused_total", "why" => "banned").increment(1);
            guard.census.refused(group, subject);
        })?;
    }
    if guard.countries.refuse(group, address) {
        metrics::counter!("guard_refused_total", "why" => "country").increment(1);
        guard.census.turned_away(group);
        return Err(Refusal {
            code: Code::CountryRefused,
            wait: None,
            budget: None,
        });
    }
    Ok(())
}

/// Whether the sender is banned already, or by this very request.
fn unless_banned(guard: &Guard, address: IpAddr, subject: Subject) -> Result<(), Refusal> {
    let banned = guard.bans.find(address).or_else(|| {
        guard
            .floods(subject)
            .then(|| guard.bans.find(address))
            .flatten()
    });
    match banned {
        None => Ok(()),
        Some((_, until)) => Err(Refusal {
            code: Code::AddressBanned,
            wait: until.map(seconds_until),
            budget: None,
        }),
    }
}

/// Whose token the request shows, if it is good. What it says stays with the request: the handler asks for it again.
fn user_of(state: &AppState, request: &ServiceRequest) -> Option<UserId> {
    let claims = state.tokens().verify(bearer_of(request.headers())?).ok()?;
    let user = claims.user;
    let is_revoked = state.revocations().is_revoked(claims.session) == Some(true);
    request.extensions_mut().insert(claims);
    (!is_revoked).then_some(user)
}

impl Refusal {
    fn answer(self, request: ServiceRequest) -> ServiceResponse {
        let mut error = ApiError::new(self.code);
        if let Some(seconds) = self.wait {
            error = error.with_retry_after(seconds);
        }
        let mut response = request.error_response(error);
        if let Some(budget) = self.budget {
            budget.tell(&mut response);
        }
        response
    }
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

impl Budget {
    /// Of somebody who is not limited.
    const fn full(limit: u32) -> Self {
        Self {
            limit,
            remaining: limit,
            reset_ms: 0,
        }
    }

    fn tell(self, response: &mut ServiceResponse) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let reset = now.unwrap_or_default() + Duration::from_millis(self.reset_ms);
        let reset = reset.as_secs() + u64::from(reset.subsec_nanos() > 0);
        let headers = response.headers_mut();
        headers.insert(LIMIT, number(self.limit));
        headers.insert(REMAINING, number(self.remaining));
        headers.insert(RESET, number(reset));
    }
}

/// Not by the header's own conversion, which takes twice as long.
fn number(number: impl itoa::Integer) -> HeaderValue {
    let mut text = itoa::Buffer::new();
    HeaderValue::from_str(text.format(number)).unwrap_or(HeaderValue::from_static("0"))
}

/// Wrong passwords, tokens and links, and paths that are none: what people rarely do and scanners mostly.
fn looks_like_guessing(response: &ServiceResponse) -> bool {
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
        | Code::EnrolmentTokenInvalid
        | Code::WebhookSignatureInvalid => true,
        Code::Unauthorized => response.request().headers().contains_key(AUTHORIZATION),
        Code::NotFound => response.request().match_pattern().is_none(),
        _ => false,
    }
}
