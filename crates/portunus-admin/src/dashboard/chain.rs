//! The page that verifies the chain of audit events in a file, for operators of the service itself: the
//! file has the events of all tenants.
//!
//! Each request verifies a bounded part. How far it came is kept by this process, as the file is: no
//! request says where to go on. What was verified is not read again until somebody starts again.

use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use maud::{Markup, html};
use portunus::audit::{ChainHead, ChainKey, VerifyError};
use tokio::sync::Mutex;

use super::context::{Context, Form, Outcome, View};
use super::fields::{Entered, buttons, form};
use super::issue::text_field;
use super::page::Page;
use super::problems::Problem;
use super::show;
use crate::Fault;

/// The most that a request verifies. A line is at most 1 MiB.
const MOST_LINES: usize = 10_000;
const MOST_BYTES: u64 = 8 << 20;

/// A line that is being written may be incomplete for this long.
const WRITING: Duration = Duration::from_millis(100);

/// The file of the chain, and how far it is verified.
pub(super) struct Chain {
    path: Arc<Path>,
    key: Option<ChainKey>,
    progress: Arc<Mutex<Option<Progress>>>,
}

/// How far the chain is verified.
struct Progress {
    head: ChainHead,
    /// Where the next line starts, in bytes.
    offset: u64,
    /// The length of the file.
    length: u64,
    /// The end that is known from elsewhere.
    known: Option<ChainHead>,
    found: Found,
    at: SystemTime,
}

enum Found {
    /// Nothing wrong so far.
    Part,
    /// Nothing wrong up to the end.
    Intact,
    /// The line, and what is wrong with it.
    Broken(u64, String),
}

impl Chain {
    pub(super) fn new(path: PathBuf, key: Option<ChainKey>) -> Self {
        Self {
            path: path.into(),
            key,
            progress: Arc::default(),
        }
    }

    /// Verifies the next part, from the beginning if `start` is given.
    async fn verify(&self, start: Option<Progress>, at: SystemTime) -> Result<(), Fault> {
        // One part at a time. It ends even if the client does not wait for it.
        let mut kept = Arc::clone(&self.progress).lock_owned().await;
        let (path, key) = (Arc::clone(&self.path), self.key.clone());
        let verified = tokio::task::spawn_blocking(move || {
            if start.is_some() {
                *kept = start;
            }
            match &mut *kept {
                Some(progress) => {
                    progress.at = at;
                    progress.advance(&path, key.as_ref())
                }
                None => Ok(()),
            }
        });
        verified.await.map_err(Fault::store)?.map_err(Fault::store)
    }
}

impl Progress {
    fn new(known: Option<ChainHead>, at: SystemTime) -> Self {
        Self {
            head: ChainHead::EMPTY,
            offset: 0,
            length: 0,
            known,
            found: Found::Part,
            at,
        }
    }

    /// Verifies lines until a bound is reached. What is wrong is looked at twice, because a line may be
    /// in the course of being written.
    fn advance(&mut self, path: &Path, key: Option<&ChainKey>) -> io::Result<()> {
        self.verify_part(path, key)?;
        if let Found::Broken(..) = self.found {
            thread::sleep(WRITING);
            self.verify_part(path, key)?;
        }
        Ok(())
    }

    fn verify_part(&mut self, path: &Path, key: Option<&ChainKey>) -> io::Result<()> {
        let mut file = File::open(path)?;
        self.length = file.metadata()?.len();
        if self.length < self.offset {
            let why = "this line was verified before and is missing now";
            self.found = Found::Broken(self.head.lines, why.to_owned());
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut lines = BufReader::new(file);
        let end = self.offset.saturating_add(MOST_BYTES);
        self.found = Found::Part;
        for _ in 0..MOST_LINES {
            match self.head.follow(&mut lines, key, self.known.as_ref()) {
                Ok(Some(head)) => self.head = head,
                Ok(None) => {
                    self.found = Found::Intact;
                    break;
                }
                Err(VerifyError::Altered(altered)) => {
                    self.found = Found::Broken(altered.line, altered.why.to_owned());
                    break;
                }
                Err(VerifyError::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error)),
            }
            self.offset = lines.stream_position()?;
            if self.offset >= end {
                break;
            }
        }
        Ok(())
    }
}

/// Returns the chain if there is one and this operator may verify it.
pub(super) fn of(cx: &Context) -> Option<&Chain> {
    let chain = cx.frame.site.look.chain.as_ref()?;
    cx.operator.operator().tenant().is_none().then_some(chain)
}

pub(super) async fn show(cx: &Context, sent: Option<&Form>) -> Result<View, Fault> {
    let chain = of(cx).ok_or_else(Fault::not_found)?;
    let progress = chain.progress.lock().await;
    let cancel = Page::Events.link();
    let cancel = (&*cancel, cx.t("form.cancel"));
    let next = match progress.as_ref().map(|progress| &progress.found) {
        Some(Found::Part) => Some("chain.continue"),
        Some(Found::Intact) => Some("chain.new"),
        Some(Found::Broken(..)) | None => None,
    };
    let next = next.map(|text| {
        let content = buttons(cx.t(text), "primary", cancel);
        form(cx, Page::Chain, None, &[("step", "next")], &content)
    });
    let start = html! {
        (text_field(cx, "head", "chain.head", "chain.head_hint").line(Entered(sent), "text", ""))
        (buttons(cx.t("chain.start"), "", cancel))
    };
    let body = html! {
        h1 { (cx.t("chain.title")) }
        p class="lead" { (cx.t("chain.lead")) }
        @match &*progress {
            Some(progress) => (state(cx, progress)),
            None => p { (cx.t("chain.none")) },
        }
        @if let Some(next) = next { (next) }
        section class="card" aria-labelledby="start" {
            h2 id="start" { (cx.t("chain.start")) }
            (form(cx, Page::Chain, sent, &[("step", "start")], &start))
        }
    };
    Ok(View::form(cx.t("chain.title"), body, sent))
}

/// What was verified, and where it breaks.
fn state(cx: &Context, progress: &Progress) -> Markup {
    let lines = html! { strong { (progress.head.lines) } };
    let text = |name| cx.fill(name, &[("lines", lines.clone())]);
    let (class, text) = match &progress.found {
        Found::Part => ("info", text("chain.part")),
        Found::Intact => ("good", text("chain.intact")),
        Found::Broken(line, why) => {
            let values = [("line", html! { (line) }), ("why", html! { (why) })];
            ("bad", cx.fill("chain.broken", &values))
        }
    };
    let last = html! { code { (progress.head) } };
    html! {
        (show::notice(class, &html! { p { (text) } }))
        section class="card progress" aria-labelledby="verified" {
            h2 id="verified" { (cx.t("chain.verified")) }
            @if let Found::Part = progress.found {
                progress max=(progress.length.max(1)) value=(progress.offset)
                    aria-labelledby="verified" {}
            }
            dl class="facts" {
                div { dt { (cx.t("events.time")) } dd { (show::time(progress.at)) } }
                div { dt { (cx.t("chain.last")) } dd { (last) } }
                @if let Some(known) = &progress.known {
                    div { dt { (cx.t("chain.head")) } dd { code { (known) } } }
                }
            }
        }
    }
}

pub(super) async fn submit(cx: &Context, sent: &Form) -> Result<Outcome, Problem> {
    let chain = of(cx).ok_or_else(Fault::not_found)?;
    let now = cx.manager().now();
    let start = match sent.fields.get("step") {
        Some("start") => {
            let known = sent.fields.get("head").map(str::parse::<ChainHead>);
            let known = known
                .transpose()
                .map_err(|error| Problem::Fields(vec![("head".to_owned(), error.to_string())]))?;
            Some(Progress::new(known, now))
        }
        _ => None,
    };
    chain.verify(start, now).await?;
    Ok(Outcome::SeeOther(Page::Chain.link()))
}
