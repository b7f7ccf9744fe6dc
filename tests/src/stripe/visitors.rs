//! The pages' routes: what a person with a browser does, and a test with a form.

use actix_web::HttpResponse;
use actix_web::web::{self, Bytes, Data, Path, ServiceConfig};
use serde_json::Value;

use super::failure::Failure;
use super::server::Server;
use super::store::{flag, text};
use super::{form, pages};

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/_pay/checkout/{id}", web::get().to(show_checkout))
        .route("/_pay/checkout/{id}", web::post().to(pay))
        .route("/_pay/checkout/{id}/return", web::get().to(come_back))
        .route(
            "/_pay/authenticate/{id}",
            web::get().to(show_authentication),
        )
        .route("/_pay/authenticate/{id}", web::post().to(authenticate))
        .route("/_pay/portal/{id}", web::get().to(show_portal))
        .route("/_pay/portal/{id}", web::post().to(use_portal))
        .route("/_pay/invoice/{id}", web::get().to(show_invoice))
        .route("/_pay/invoice/{id}/pdf", web::get().to(invoice_pdf))
        .route("/_pay/receipt/{id}", web::get().to(show_receipt));
}

async fn show_checkout(server: Data<Server>, id: Path<String>) -> HttpResponse {
    match server.desk.lock().await.open_session(&id) {
        Ok(session) => html(200, pages::checkout(&session, "")),
        Err(refused) => failed(&refused),
    }
}

async fn pay(server: Data<Server>, id: Path<String>, body: Bytes) -> HttpResponse {
    let card = pages::card_of(&form::parse(&body));
    let mut desk = server.desk.lock().await;
    let outcome = Box::pin(desk.pay_session(&id, &card)).await;
    let kept = desk.store.keep();
    match outcome {
        _ if kept.is_err() => HttpResponse::InternalServerError().finish(),
        Ok(paid) if paid["object"] == "checkout.session" => see_other(&success_url(&paid)),
        Ok(intent) => see_other(text(&intent["next_action"]["redirect_to_url"], "url")),
        Err(refused) => match desk.open_session(&id) {
            Ok(session) => html(refused.status, pages::checkout(&session, refused.message())),
            Err(_) => failed(&refused),
        },
    }
}

/// From 3-D Secure: on with the purchase, or back to the page for another card.
async fn come_back(server: Data<Server>, id: Path<String>) -> HttpResponse {
    let mut desk = server.desk.lock().await;
    let session = match desk.open_session(&id) {
        Ok(session) => session,
        Err(refused) => return failed(&refused),
    };
    let intent = match session["setup_intent"].as_str() {
        Some(setup) => desk.store.find(setup),
        None => {
            let invoice = desk.store.find(text(&session, "invoice"));
            let paying = invoice.unwrap_or(&session);
            desk.store.find(text(paying, "payment_intent"))
        }
    };
    if intent.is_none_or(|it| it["status"] != "succeeded") {
        let page = pages::checkout(&session, "Your bank did not confirm the payment.");
        return html(402, page);
    }
    let completed = Box::pin(desk.complete_session(&id)).await;
    let kept = desk.store.keep();
    match completed {
        _ if kept.is_err() => HttpResponse::InternalServerError().finish(),
        Ok(session) => see_other(&success_url(&session)),
        Err(refused) => failed(&refused),
    }
}

async fn show_authentication(server: Data<Server>, id: Path<String>) -> HttpResponse {
    match server.desk.lock().await.store.find(&id) {
        Some(intent) if intent["status"] == "requires_action" => {
            html(200, pages::authenticate(intent))
        }
        _ => failed(&Failure::missing("intent", &id)),
    }
}

async fn authenticate(server: Data<Server>, id: Path<String>, body: Bytes) -> HttpResponse {
    let is_confirmed = flag(&form::parse(&body), "confirmed");
    let mut desk = server.desk.lock().await;
    let outcome = if id.starts_with("seti_") {
        desk.authenticate_setup(&id, is_confirmed).await
    } else {
        Box::pin(desk.authenticate_intent(&id, is_confirmed)).await
    };
    if desk.store.keep().is_err() {
        return HttpResponse::InternalServerError().finish();
    }
    // The person goes back in either case: the intent tells what came of it.
    let back = desk.store.find(&id).map(|it| text(it, "return_url"));
    match (back, outcome) {
        (Some(url), _) if !url.is_empty() => see_other(url),
        (_, Ok(_)) => html(
            200,
            pages::page("Confirmed", "<p>You may close this page.</p>"),
        ),
        (_, Err(refused)) => failed(&refused),
    }
}

async fn show_portal(server: Data<Server>, id: Path<String>) -> HttpResponse {
    let desk = server.desk.lock().await;
    match desk.store.get("billing_portal.session", &id) {
        Ok(session) => html(200, pages::portal(&desk, &session, "")),
        Err(refused) => failed(&refused),
    }
}

async fn use_portal(server: Data<Server>, id: Path<String>, body: Bytes) -> HttpResponse {
    let mut desk = server.desk.lock().await;
    let outcome = Box::pin(desk.use_portal(&id, &form::parse(&body))).await;
    let kept = desk.store.keep();
    match (outcome, desk.store.get("billing_portal.session", &id)) {
        _ if kept.is_err() => HttpResponse::InternalServerError().finish(),
        (Ok(_), Ok(session)) => html(200, pages::portal(&desk, &session, "")),
        (Err(refused), Ok(session)) => html(
            refused.status,
            pages::portal(&desk, &session, refused.message()),
        ),
        (_, Err(refused)) => failed(&refused),
    }
}

async fn show_invoice(server: Data<Server>, id: Path<String>) -> HttpResponse {
    match server.desk.lock().await.store.get("invoice", &id) {
        Ok(invoice) => html(200, pages::invoice(&invoice)),
        Err(refused) => failed(&refused),
    }
}

async fn invoice_pdf(server: Data<Server>, id: Path<String>) -> HttpResponse {
    match server.desk.lock().await.store.get("invoice", &id) {
        Ok(invoice) => HttpResponse::Ok()
            .content_type("application/pdf")
            .body(pages::invoice_pdf(&invoice)),
        Err(refused) => failed(&refused),
    }
}

async fn show_receipt(server: Data<Server>, id: Path<String>) -> HttpResponse {
    match server.desk.lock().await.retrieve(&id).await {
        Ok(charge) => html(200, pages::receipt(&charge)),
        Err(refused) => failed(&refused),
    }
}

fn success_url(session: &Value) -> String {
    text(session, "success_url").replace("{CHECKOUT_SESSION_ID}", text(session, "id"))
}

fn see_other(url: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header(("location", url))
        .finish()
}

fn html(status: u16, page: String) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(status);
    HttpResponse::build(status.unwrap_or_default())
        .content_type("text/html; charset=utf-8")
        .body(page)
}

fn failed(refused: &Failure) -> HttpResponse {
    let words = pages::page("It did not work", &pages::paragraph(refused.message()));
    html(refused.status, words)
}
