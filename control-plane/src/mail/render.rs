//! What a letter says, as text and as HTML.

use std::borrow::Cow;

use askama::Template;

use super::letter::Letter;
use crate::guard::AlertKind;

/// Who writes, and where their pages are.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) name: String,
    pub(super) public_url: String,
}

/// A letter ready to be put into an envelope.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
}

struct Content {
    subject: &'static str,
    paragraphs: Vec<Cow<'static, str>>,
    link: Option<Link>,
    closing: &'static str,
}

struct Link {
    label: &'static str,
    url: String,
}

#[derive(Template)]
#[template(path = "mail/letter.html")]
struct Html<'a> {
    sender: &'a str,
    content: &'a Content,
}

#[derive(Template)]
#[template(path = "mail/letter.txt")]
struct Text<'a> {
    sender: &'a str,
    content: &'a Content,
}

pub(super) fn render(letter: &Letter, sender: &Sender) -> Result<Rendered, askama::Error> {
    let content = &content(letter, &sender.public_url);
    let name = sender.name.as_str();
    let text = Text {
        sender: name,
        content,
    };
    let html = Html {
        sender: name,
        content,
    };
    Ok(Rendered {
        subject: format!("{name}: {}", content.subject),
        text: text.render()?,
        html: html.render()?,
    })
}

const NOT_YOU: &str = "If this was not you, reset your password at once and write to our support.";

fn content(letter: &Letter, public_url: &str) -> Content {
    match letter {
        Letter::VerifyEmail { token } => Content {
            subject: "confirm your address",
            paragraphs: vec!["Please confirm that this address is yours.".into()],
            link: Some(Link {
                label: "Confirm this address",
                url: format!("{public_url}/verify-email?token={}", token.expose()),
            }),
            closing: "The link works once. If you have no account with us, ignore this mail.",
        },
        Letter::ResetPassword { token } => Content {
            subject: "choose a new password",
            paragraphs: vec!["Somebody, hopefully you, asked for a new password of your account.".into()],
            link: Some(Link {
                label: "Choose a new password",
                url: format!("{public_url}/reset-password?token={}", token.expose()),
            }),
            closing: "The link works once and for a short time. If you did not ask for it, ignore \
                      this mail: your password stays as it is.",
        },
        Letter::PasswordChanged => notice(
            "your password was changed",
            "The password of your account was changed, and other devices were logged out.",
        ),
        Letter::PasswordTried => Content {
            subject: "somebody is trying passwords of your account",
            paragraphs: vec![
                "Somebody tries one password after the other for your account, from places where you \
                 never logged in. We refuse more such tries for a while."
                    .into(),
                "Wherever you logged in before, you can go on as usual. If you are the one who tries, \
                 ask for a new password in the app: once you chose it, you can log in where you are."
                    .into(),
            ],
            link: None,
            closing: "If it was not you, you need not do anything, as long as your password is long \
                      and used nowhere else.",
        },
        Letter::EmailChanged => notice(
            "your address was changed",
            "Your account has another e-mail address now. This one is no longer used.",
        ),
        Letter::MfaEnabled => notice(
            "two-factor login is on",
            "From now on a login needs a code of your authenticator.",
        ),
        Letter::MfaDisabled => notice(
            "two-factor login is off",
            "From now on a login needs your password alone.",
        ),
        Letter::AccountDeleted => Content {
            subject: "your account was deleted",
            paragraphs: vec!["Your account was deleted, and with it what we knew of you.".into()],
            link: None,
            closing: "This is the last mail that you get from us.",
        },
        Letter::PaymentFailed { until } => Content {
            subject: "a payment failed",
            paragraphs: vec![
                "The renewal of your plan could not be charged. We try again in the next days.".into(),
                format!(
                    "Nothing ends for now: your plan stays until {}. Please see in the app that your \
                     payment method is valid and covered.",
                    until.format("%-d %B %Y, %H:%M UTC")
                )
                .into(),
            ],
            link: None,
            closing: "Once the payment succeeds, everything goes on as before.",
        },
        Letter::GraceEnded => Content {
            subject: "your plan is on hold",
            paragraphs: vec![
                "The renewal of your plan was not paid in time. Your account has the free plan now.".into(),
            ],
            link: None,
            closing: "Your plan comes back with a payment that succeeds; the app shows how.",
        },
        Letter::SubscriptionEnded => Content {
            subject: "your plan has ended",
            paragraphs: vec![
                "What you paid for is over. Your account goes on with the free plan.".into(),
            ],
            link: None,
            closing: "Thank you for having been with us. You can choose a plan again at any time.",
        },
        Letter::Attacked { kind } => Content {
            subject: "an attack began",
            paragraphs: vec![attack(*kind).into()],
            link: None,
            closing: "Read on at /api/v1/admin/security/alerts, and acknowledge there that you look into \
                      it. Further attacks of this kind cause no mail for a quarter of an hour.",
        },
    }
}

const fn attack(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::Flood => {
            "Somebody asks far more than anybody needs. Their addresses are banned."
        }
        AlertKind::Guessing => {
            "Somebody fails again and again, as one does who guesses. Their addresses are banned."
        }
        AlertKind::AccountGuessing => {
            "Somebody guesses the password of one account from many places. Strangers are refused, \
             and the owner is told."
        }
        AlertKind::Refusals => "Limits refuse far more requests than usual.",
        AlertKind::BadWebhooks => {
            "Somebody sends events to the webhook for payments that the payment provider did not sign, \
             or sends old ones again. They are refused. If nobody attacks, STRIPE_WEBHOOK_SECRET or the \
             clock is wrong."
        }
        AlertKind::Disputes => {
            "Somebody takes a payment back through their bank. What they claim, and until when it can be \
             answered, is in the dashboard of the payment provider."
        }
    }
}

fn notice(subject: &'static str, text: &'static str) -> Content {
    Content {
        subject,
        paragraphs: vec![text.into()],
        link: None,
        closing: NOT_YOU,
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::secrets::SecretToken;
    use secrecy::ExposeSecret;

    fn sender() -> Sender {
        Sender {
            name: "Prime & Sons".to_owned(),
            public_url: "https://vpn.example.org".to_owned(),
        }
    }

    #[test]
    fn every_letter_says_the_same_in_both_parts() {
        let token = || (&SecretToken::generate()).into();
        let attacks = AlertKind::ALL
            .iter()
            .map(|kind| Letter::Attacked { kind: *kind });
        let letters = [
            Letter::VerifyEmail { token: token() },
            Letter::ResetPassword { token: token() },
            Letter::PasswordChanged,
            Letter::PasswordTried,
            Letter::EmailChanged,
            Letter::MfaEnabled,
            Letter::MfaDisabled,
            Letter::AccountDeleted,
            Letter::PaymentFailed {
                until: DateTime::UNIX_EPOCH,
            },
            Letter::GraceEnded,
            Letter::SubscriptionEnded,
        ];
        for letter in letters.into_iter().chain(attacks) {
            let content = content(&letter, "https://vpn.example.org");
            let Rendered {
                subject,
                text,
                html,
            } = render(&letter, &sender()).unwrap();
            assert!(subject.starts_with("Prime & Sons: "), "{subject}");
            let closing = Cow::from(content.closing);
            for words in content.paragraphs.iter().chain([&closing]) {
                assert!(
                    text.contains(&**words) && html.contains(&**words),
                    "{text}\n{html}"
                );
            }
            assert!(text.contains("Prime & Sons") && html.contains("Prime &#38; Sons"));
            let others = html.replace("https://vpn.example.org/", "");
            assert!(!others.contains("://"), "{html}");
        }
    }

    #[test]
    fn a_link_stands_in_both_parts() {
        let token = SecretToken::generate();
        let letter = Letter::ResetPassword {
            token: (&token).into(),
        };
        let Rendered { text, html, .. } = render(&letter, &sender()).unwrap();
        let url = format!(
            "https://vpn.example.org/reset-password?token={}",
            token.expose_secret()
        );
        assert!(text.lines().any(|line| line == url), "{text}");
        assert!(html.contains(&format!("href=\"{url}\"")), "{html}");
    }
}
