//! Secrets are read from a file, the environment, standard input or a prompt without echo. No
//! argument holds one: other users of the machine can read a process's arguments.

use std::fs::File;
use std::io::{IsTerminal, Read, stderr, stdin};
use std::path::Path;

use zeroize::Zeroizing;

use crate::failure::Failure;

/// The longest secret in bytes; tokens and addresses are shorter.
const LONGEST: u64 = 64 * 1024;

/// Where a secret may come from.
pub(crate) struct Source<'a> {
    /// What it is, for the prompt and for errors.
    pub(crate) what: &'a str,
    /// The value of the flag that names a file; `-` for standard input.
    pub(crate) file: Option<&'a Path>,
    pub(crate) flag: &'a str,
    pub(crate) variable: &'a str,
}

impl Source<'_> {
    /// Reads the secret from the file if one is named, or else from the environment; `None` if it is
    /// in neither.
    pub(crate) fn given(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        if let Some(path) = self.file {
            return self.of_file(path).map(Some);
        }
        match std::env::var(self.variable) {
            Ok(text) => Ok(Some(Zeroizing::new(text))),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(Failure::usage(format!("{} is not UTF-8", self.variable)))
            }
        }
    }

    /// Like [`given`](Self::given); otherwise asks for it, where there is a terminal.
    pub(crate) fn read(&self) -> Result<Zeroizing<String>, Failure> {
        if let Some(secret) = self.given()? {
            return Ok(secret);
        }
        if !is_attended() {
            let (what, variable, flag) = (self.what, self.variable, self.flag);
            return Err(Failure::usage(format!(
                "no {what}: set {variable}, or name a file by {flag} (`-` for standard input)"
            )));
        }
        prompt(self.what)
    }

    fn of_file(&self, path: &Path) -> Result<Zeroizing<String>, Failure> {
        let cannot = |why: &dyn std::fmt::Display| {
            Failure::usage(format!(
                "cannot read the {} from {}: {why}",
                self.what,
                path.display()
            ))
        };
        let text = if path.as_os_str() == "-" {
            read_line(stdin().lock())
        } else {
            File::open(path).and_then(read_line)
        };
        match text {
            Ok(text) if text.is_empty() => Err(cannot(&"it is empty")),
            text => text.map_err(|error| cannot(&error)),
        }
    }
}

/// Reads a text without the line break at its end.
pub(crate) fn read_line(from: impl Read) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    from.take(LONGEST).read_to_string(&mut text)?;
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    Ok(text)
}

/// Whether a person can be asked.
pub(crate) fn is_attended() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

/// Asks for a secret without echo.
pub(crate) fn prompt(what: &str) -> Result<Zeroizing<String>, Failure> {
    eprint!("{what}: ");
    let typed = console::Term::stderr().read_secure_line();
    let typed =
        typed.map_err(|error| Failure::other(format!("cannot ask for the {what}: {error}")))?;
    Ok(Zeroizing::new(typed))
}

/// Asks whether to do something that cannot be undone. Without a terminal, `--yes` must have been
/// given.
pub(crate) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !is_attended() {
        return Err(Failure::usage("without a terminal, this needs --yes"));
    }
    eprint!("{} [y/N] ", crate::text::shown(question));
    let mut typed = String::new();
    stdin().read_line(&mut typed)?;
    match typed.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::other("nothing was changed")),
    }
}
