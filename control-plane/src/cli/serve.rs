//! `serve`

use std::process::ExitCode;

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::logging;
use crate::app::Application;
use crate::config::Config;
use crate::listener;

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    logging::init(&config.logging)?;
    listener::raise_descriptors();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stopping = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut app = tokio::select! {
        started = Application::start(config) => started?,
        () = stopping() => return Ok(ExitCode::SUCCESS),
    };
    notify(NotifyState::Ready);
    tokio::select! {
        ended = app.failed() => {
            ended?.context("the server ended")?;
            anyhow::bail!("the server ended by itself");
        }
        () = stopping() => {}
    }
    notify(NotifyState::Stopping);
    app.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Tells systemd, where it asked to be told.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "no service manager was told");
    }
}
