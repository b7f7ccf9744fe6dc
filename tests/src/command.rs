//! The operator's commands, run as they are.

use std::io::Write;
use std::process::{Command, Stdio};

use control_plane::config::Variables;

use crate::lab::binary;
use crate::variables;

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub success: bool,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Insists that it worked, and gives what it printed.
    #[must_use]
    #[track_caller]
    pub fn expect(self) -> String {
        assert!(self.success, "{}", self.err);
        self.out.trim().to_owned()
    }
}

/// Runs `control-plane` over a database, or without any configuration.
pub async fn control_plane(database: Option<&str>, arguments: &[&str], input: &str) -> Said {
    run(
        database.map(variables).unwrap_or_default(),
        arguments,
        input,
    )
    .await
}

/// Runs `control-plane` over a database with more settings.
pub async fn control_plane_with(
    database: &str,
    settings: &[(&str, String)],
    arguments: &[&str],
) -> Said {
    let mut variables = variables(database);
    for (name, value) in settings {
        variables.insert((*name).to_owned(), value.clone());
    }
    run(variables, arguments, "").await
}

async fn run(variables: Variables, arguments: &[&str], input: &str) -> Said {
    let mut command = Command::new(binary("CONTROL_PLANE_BIN", "control-plane"));
    command
        .args(arguments)
        .env_clear()
        .current_dir(std::env::temp_dir())
        .envs(variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let input = input.to_owned();
    let run = move || {
        let mut child = command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A command that reads nothing may be gone already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("the program ends")
    };
    let output = tokio::task::spawn_blocking(run).await.expect("it is run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said {
        success: output.status.success(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}
