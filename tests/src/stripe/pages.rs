//! What a person sees: paying, 3-D Secure, the portal, an invoice.

use serde_json::{Value, json};

use super::desk::Desk;
use super::store::{number, text};

const STYLE: &str = "body{font:16px sans-serif;max-width:30rem;margin:3rem auto;padding:0 1rem}\
    input,button{font:inherit;padding:.4rem;margin:.2rem 0;width:100%;box-sizing:border-box}\
    .refused{color:#b00020}small{color:#666}";

const CARD: &str = "<label>Card number <input name=number value=\"4242 4242 4242 4242\" \
    autocomplete=off></label><label>Month <input name=exp_month value=12></label>\
    <label>Year <input name=exp_year value=2034></label><label>CVC <input name=cvc value=123>\
    </label>";

const HINT: &str = "<p><small>A test server: no money moves. 4242 4242 4242 4242 pays, \
    4000 0000 0000 0341 pays nothing, 4000 0000 0000 0002 is declined, \
    4000 0025 0000 3155 asks for 3-D Secure.</small></p>";

pub(super) fn checkout(session: &Value, refusal: &str) -> String {
    let items = session["_items"].as_array().into_iter().flatten();
    let lines: String = items
        .map(|it| {
            let name = it["price"]["nickname"].as_str().unwrap_or("Subscription");
            format!("<li>{}: {}</li>", escaped(name), money(it, "amount_total"))
        })
        .collect();
    let back = text(session, "cancel_url");
    page(
        "Pay",
        &format!(
            "<ul>{lines}</ul><p>Due now: <b>{}</b></p>{}<form method=post>{CARD}\
             <button>Pay</button></form><p><a href=\"{}\">Back</a></p>{HINT}",
            money(session, "amount_total"),
            refused(refusal),
            escaped(back),
        ),
    )
}

pub(super) fn authenticate(intent: &Value) -> String {
    let about = if intent["amount"].is_null() {
        "Your bank asks whether this card may be kept.".to_owned()
    } else {
        format!("Your bank asks about {}.", money(intent, "amount"))
    };
    page(
        "3-D Secure",
        &format!(
            "<p>{about}</p><form method=post><button name=confirmed value=true>Complete</button>\
             <button name=confirmed value=false>Fail</button></form>"
        ),
    )
}

pub(super) fn portal(desk: &Desk, session: &Value, refusal: &str) -> String {
    let subscriptions = desk.portal_subscriptions(session);
    let rows: String = subscriptions.iter().map(subscription_row).collect();
    let back = match session["return_url"].as_str() {
        Some(url) => format!("<p><a href=\"{}\">Back</a></p>", escaped(url)),
        None => String::new(),
    };
    page(
        "Your subscription",
        &format!(
            "{}{rows}<h2>Card</h2><form method=post>{CARD}\
             <button name=action value=card>Use this card</button></form>{back}{HINT}",
            refused(refusal)
        ),
    )
}

fn subscription_row(subscription: &Value) -> String {
    let (action, label) = if subscription["cancel_at_period_end"] == true {
        ("resume", "Do not cancel")
    } else {
        ("cancel", "Cancel at the period's end")
    };
    format!(
        "<form method=post><p>{} <input type=hidden name=subscription value=\"{}\">\
         <button name=action value={action}>{label}</button></p></form>",
        escaped(text(subscription, "status")),
        escaped(text(subscription, "id")),
    )
}

pub(super) fn invoice(invoice: &Value) -> String {
    let lines: String = lines_of(invoice)
        .map(|(description, amount)| format!("<li>{}: {amount}</li>", escaped(&description)))
        .collect();
    page(
        &format!("Invoice {}", text(invoice, "number")),
        &format!(
            "<ul>{lines}</ul><p>Total: <b>{}</b>, {}</p><p><a href=\"{}\">PDF</a></p>",
            money(invoice, "total"),
            escaped(text(invoice, "status")),
            escaped(text(invoice, "invoice_pdf")),
        ),
    )
}

pub(super) fn receipt(charge: &Value) -> String {
    let status = escaped(text(charge, "status"));
    let content = format!("<p>{}: {status}</p>", money(charge, "amount"));
    page("Receipt", &content)
}

pub(super) fn paragraph(words: &str) -> String {
    format!("<p>{}</p>", escaped(words))
}

/// A PDF of one page with the invoice's words.
pub(super) fn invoice_pdf(invoice: &Value) -> Vec<u8> {
    let mut words = vec![format!("Invoice {}", text(invoice, "number"))];
    words.extend(lines_of(invoice).map(|(description, amount)| format!("{description}: {amount}")));
    words.push(format!("Total: {}", money(invoice, "total")));
    let shown: String = words
        .iter()
        .map(|line| format!("({}) Tj 0 -20 Td ", line.replace(['(', ')', '\\'], " ")))
        .collect();
    let content = format!("BT /F1 12 Tf 50 780 Td {shown}ET");
    let objects = [
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        "<</Type/Pages/Kids[3 0 R]/Count 1>>".to_owned(),
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R\
         /Resources<</Font<</F1 5 0 R>>>>>>"
            .to_owned(),
        format!("<</Length {}>>stream\n{content}\nendstream", content.len()),
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_owned(),
    ];
    let (mut file, mut table) = ("%PDF-1.4\n".to_owned(), String::new());
    for (index, object) in objects.iter().enumerate() {
        table += &format!("{:010} 00000 n \n", file.len());
        file += &format!("{} 0 obj{object}endobj\n", index + 1);
    }
    let size = objects.len() + 1;
    let start = file.len();
    file += &format!(
        "xref\n0 {size}\n0000000000 65535 f \n{table}trailer<</Size {size}/Root 1 0 R>>\n\
         startxref\n{start}\n%%EOF\n"
    );
    file.into_bytes()
}

fn lines_of(invoice: &Value) -> impl Iterator<Item = (String, String)> + '_ {
    let lines = invoice["lines"]["data"].as_array().into_iter().flatten();
    lines.map(|line| (text(line, "description").to_owned(), money(line, "amount")))
}

/// The card that a form of these pages carries, as the API takes it.
pub(super) fn card_of(form: &Value) -> Value {
    let digits: String = text(form, "number").split_whitespace().collect();
    json!({"number": digits, "exp_month": form["exp_month"], "exp_year": form["exp_year"],
        "cvc": form["cvc"]})
}

pub(super) fn page(title: &str, content: &str) -> String {
    format!(
        "<!doctype html><meta charset=utf-8><title>{0}</title><style>{STYLE}</style>\
         <h1>{0}</h1>{content}",
        escaped(title)
    )
}

fn refused(refusal: &str) -> String {
    if refusal.is_empty() {
        return String::new();
    }
    format!("<p class=refused>{}</p>", escaped(refusal))
}

/// Minor units, which is all that a test server needs to tell.
fn money(object: &Value, key: &str) -> String {
    let currency = text(object, "currency").to_uppercase();
    format!(
        "{} {} (minor units)",
        number(object, key),
        escaped(&currency)
    )
}

fn escaped(words: &str) -> String {
    words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
