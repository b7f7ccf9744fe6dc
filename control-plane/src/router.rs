//! Every route, and the layers around them.

use std::rc::Rc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ResourceDef, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Bytes};
use actix_web::{App, Error, HttpRequest, HttpResponse};
use utoipa::openapi::path::PathItem;
use utoipa::openapi::{OpenApi, Paths};
use utoipa_actix_web::service_config::ServiceConfig;
use utoipa_actix_web::{AppExt, scope};

use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::guard::{self, Lane};
use crate::http::Answer;
use crate::http::observe::{Series, observe};
use crate::http::{cors, docs, frame, host, https, input};
use crate::{
    accounts, analytics, audit, billing, fleet, health, jobs, oauth, overview, tunnels, usage,
};

/// What the document names.
fn documented(config: &mut ServiceConfig<'_>) {
    config.service(
        scope("/api/v1")
            // What is asked for most comes first: paths are compared in this order.
            .configure(fleet::routes)
            .configure(accounts::routes)
            .configure(accounts::sessions::routes)
            .configure(accounts::recovery::routes)
            .configure(accounts::mfa::routes)
            .configure(accounts::devices::routes)
            .configure(accounts::people::routes)
            .configure(audit::routes)
            .configure(guard::routes)
            .configure(oauth::routes)
            .configure(health::routes)
            .configure(tunnels::routes)
            .configure(usage::routes)
            .configure(analytics::routes)
            .configure(billing::routes)
            .configure(jobs::routes)
            .configure(overview::routes),
    );
    fleet::node_routes(config);
    oauth::well_known(config);
}

/// The routes of the first API, which had no version in their paths: the same handlers again.
fn aliases(config: &mut ServiceConfig<'_>) {
    health::routes(config);
    accounts::aliases(config);
    oauth::aliases(config);
    tunnels::aliases(config);
    usage::aliases(config);
    billing::aliases(config);
}

/// One worker's application. The layers run from the last to the first.
pub fn app(
    state: &web::Data<AppState>,
    documentation: &web::Data<Documentation>,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<BoxBody>,
        Error = Error,
        InitError = (),
    > + use<>,
> {
    let lane = Rc::new(state.guard().lane());
    App::new()
        .app_data(state.clone())
        .app_data(Rc::clone(&lane))
        .app_data(documentation.clone())
        .app_data(Series::default())
        .configure(input::configure)
        // Services are compared with a path in this order, and a scope takes every path below its own:
        // what is asked for most comes first.
        .configure(docs::document)
        .configure(|config| documented(&mut ServiceConfig::new(config)))
        .configure(docs::pages)
        .configure(accounts::recovery::pages)
        .configure(|config| aliases(&mut ServiceConfig::new(config)))
        .default_service(web::to(unmatched))
        .wrap(from_fn({
            let around = Rc::new(Around {
                state: state.clone(),
                documentation: documentation.clone(),
                lane,
            });
            move |request, next| layers(Rc::clone(&around), request, next)
        }))
}

/// What a worker's layers need.
struct Around {
    state: web::Data<AppState>,
    documentation: web::Data<Documentation>,
    lane: Rc<Lane>,
}

/// What every request passes, from the outside in. They are one layer to actix, which keeps each of
/// its own on the heap and behind a pointer.
async fn layers(
    around: Rc<Around>,
    request: ServiceRequest,
    handlers: Next<impl MessageBody + 'static>,
) -> Answer {
    let Around {
        state,
        documentation,
        lane,
    } = &*around;
    let origins = &state.config().http.cors_allowed_origins;
    let handle = async |request| Ok(handlers.call(request).await?.map_into_boxed_body());
    let ours = async |request| ours(state, request, handle).await;
    let protect = async |request| guard::protect(state, lane, request, ours).await;
    let cors = async |request| cors::cors(origins, documentation, request, protect).await;
    // On the heap, where it stays: what is around it is moved several times on its way into the connection.
    let within = async |request| Box::pin(cors(request)).await;
    frame::frame(request, async |request| observe(request, within).await).await
}

/// Turns away who asks for another host or over plain HTTP where it has to be HTTPS, and counts the
/// rest while they are answered.
async fn ours(
    state: &AppState,
    request: ServiceRequest,
    next: impl AsyncFnOnce(ServiceRequest) -> Answer,
) -> Answer {
    let config = &state.config().http;
    let promised = https::promises(config) && https::is_https(&request, config);
    let mut response = if !host::is_allowed(&request, &config.allowed_hosts) {
        let error = ApiError::invalid("Host", "This is not a host of this service");
        request.error_response(error)
    } else if let Some(refusal) = https::refusal(&request, config) {
        // Not by `into_response`, which forgets the error.
        ServiceResponse::new(request.into_parts().0, refusal)
    } else {
        let _in_flight = state.requests().token();
        next(request).await?
    };
    if promised {
        let (name, value) = https::HSTS;
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// What no route took: nothing is there, or it takes other methods.
async fn unmatched(request: HttpRequest, documentation: web::Data<Documentation>) -> HttpResponse {
    match documentation.methods(request.path()) {
        None => HttpResponse::from_error(ApiError::new(Code::NotFound)),
        Some(methods) => {
            let error = ApiError::new(Code::MethodNotAllowed);
            let mut response = HttpResponse::from_error(error);
            response.headers_mut().insert(ALLOW, methods);
            response
        }
    }
}

/// The OpenAPI document and what it says about paths and their methods.
pub struct Documentation {
    document: OpenApi,
    json: Bytes,
    methods: Vec<(ResourceDef, HeaderValue)>,
}

impl std::fmt::Debug for Documentation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Documentation").finish_non_exhaustive()
    }
}

impl Default for Documentation {
    fn default() -> Self {
        Self::new()
    }
}

impl Documentation {
    #[must_use]
    pub fn new() -> Self {
        let collect = |base: OpenApi, routes: fn(&mut ServiceConfig<'_>)| {
            let app = App::new().into_utoipa_app().openapi(base);
            app.configure(routes).split_for_parts().1
        };
        let mut document = collect(docs::base(), documented);
        docs::complete(&mut document);
        let aliases = collect(docs::base(), aliases);
        Self {
            json: document.to_json().unwrap_or_default().into(),
            methods: [&document.paths, &aliases.paths]
                .into_iter()
                .flat_map(methods)
                .collect(),
            document,
        }
    }

    #[must_use]
    pub const fn document(&self) -> &OpenApi {
        &self.document
    }

    #[must_use]
    pub fn json(&self) -> Bytes {
        self.json.clone()
    }

    /// The methods of the route with this path, if there is one.
    #[must_use]
    pub fn methods(&self, path: &str) -> Option<HeaderValue> {
        self.methods
            .iter()
            .find(|(route, _)| route.is_match(path))
            .map(|(_, methods)| methods.clone())
    }
}

fn methods(paths: &Paths) -> impl Iterator<Item = (ResourceDef, HeaderValue)> {
    paths.paths.iter().filter_map(|(path, item)| {
        let methods = names(item).join(", ");
        Some((
            ResourceDef::new(path.as_str()),
            HeaderValue::from_str(&methods).ok()?,
        ))
    })
}

/// Where there is `GET`, the frame also takes `HEAD`.
fn names(item: &PathItem) -> Vec<&'static str> {
    [
        ("GET", &item.get),
        ("HEAD", &item.get),
        ("PUT", &item.put),
        ("POST", &item.post),
        ("DELETE", &item.delete),
        ("PATCH", &item.patch),
    ]
    .into_iter()
    .filter_map(|(name, operation)| operation.is_some().then_some(name))
    .collect()
}

#[cfg(test)]
mod tests;
