//! The tools that the quickstart and its examples call.

use std::process::{Command, Stdio};

use super::{Finding, State, apt_install};

pub(super) fn findings() -> Vec<Finding> {
    vec![
        tool("python3", &["python3", "--version"], "python3"),
        // As a module: `pip` on the path may belong to another Python.
        tool("pip", &["python3", "-m", "pip", "--version"], "python3-pip python3-venv"),
    ]
}

fn tool(subject: &'static str, command: &[&str], packages: &str) -> Finding {
    match first_line(command) {
        Some(version) => Finding::good(subject, version),
        None => {
            let detail = format!("`{}` does not run; the quickstart's clients need it", command.join(" "));
            Finding::new(subject, State::Missing, detail, Some(apt_install(packages)))
        }
    }
}

fn first_line(command: &[&str]) -> Option<String> {
    let (program, arguments) = command.split_first()?;
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_fails_or_is_not_there_is_missing() {
        assert_eq!(tool("sh", &["sh", "-c", "echo 1.2; echo more"], "dash").detail, "1.2");
        for command in [&["sh", "-c", "exit 1"][..], &["no-such-program-at-all"]] {
            let finding = tool("tool", command, "package-a");
            assert_eq!(finding.state, State::Missing);
            assert!(finding.mend.is_some_and(|mend| mend.ends_with("apt-get install -y package-a")));
        }
    }
}
