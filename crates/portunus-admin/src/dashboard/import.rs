//! The import of keys by their digests, from lines that are pasted.
//!
//! A form without script cannot send a file as `application/x-www-form-urlencoded`, and its content is
//! bounded: larger files are imported by the API or the command line. A repeated import creates nothing
//! twice, because keys are recognized by their digests.

use maud::{Markup, html};

use super::context::{Context, Form, Outcome, View};
use super::fields::{Entered, buttons, form};
use super::issue::text_field;
use super::page::Page;
use super::problems::Problem;
use super::show;
use crate::{ImportFormat, ImportReport, KeyImport};

pub(super) fn show(cx: &Context, sent: Option<&Form>) -> View {
    page(cx, sent, None)
}

pub(super) async fn submit(cx: &Context, sent: &Form) -> Result<Outcome, Problem> {
    let wrong = |field: &str, text: &'static str| {
        Problem::Fields(vec![(field.to_owned(), cx.t(text).to_owned())])
    };
    let format = match sent.fields.get("format") {
        Some("csv") => ImportFormat::Csv,
        Some("json") => ImportFormat::JsonLines,
        _ => return Err(wrong("format", "import.no_format")),
    };
    let lines = sent.fields.entered("lines").unwrap_or_default();
    if lines.trim().is_empty() {
        return Err(wrong("lines", "import.no_lines"));
    }
    let mut import = KeyImport::new(cx.manager(), format);
    let pushed = import.push(lines.as_bytes()).await;
    pushed.map_err(|stopped| Problem::Fault(stopped.into()))?;
    let report = import.finish().await;
    let report = report.map_err(|stopped| Problem::Fault(stopped.into()))?;
    // With the lines, if some of them need to be corrected.
    let again = (report.refused > 0).then_some(sent);
    Ok(page(cx, again, Some(&report)).into())
}

fn page(cx: &Context, sent: Option<&Form>, report: Option<&ImportReport>) -> View {
    let entered = Entered(sent);
    let formats = [("csv", "import.csv"), ("json", "import.json")];
    let formats = formats.map(|(name, text)| (name.to_owned(), cx.t(text).to_owned()));
    let content = html! {
        (text_field(cx, "format", "import.format", "").choice(entered, &formats, "csv"))
        (text_field(cx, "lines", "import.lines", "import.lines_hint").area(entered, "", true))
        (buttons(cx.t("import.submit"), "primary", (&Page::Keys.link(), cx.t("form.cancel"))))
    };
    let body = html! {
        h1 { (cx.t("import.title")) }
        @if let Some(report) = report { (self::report(cx, report)) }
        p class="lead" { (cx.t("import.lead")) }
        (form(cx, Page::Import, sent, &[], &content))
        section class="card subject" aria-labelledby="example" {
            h2 id="example" { (cx.t("import.example")) }
            p { (cx.t("import.example_csv")) }
            pre { code {
                "name,owner.user_id,digest.scheme,digest.hex\n"
                "nightly job,ann,sha256,e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            } }
            p { (cx.t("import.example_json")) }
            pre { code {
                "{\"name\":\"nightly job\",\"digest\":{\"scheme\":\"sha256\",\"hex\":\"e3b0c4…\"}}"
            } }
            p { (cx.t("import.large")) }
        }
    };
    View::form(cx.t("import.title"), body, sent)
}

/// What was imported, and each line that was refused with its reason.
fn report(cx: &Context, report: &ImportReport) -> Markup {
    let class = match report.refused {
        0 => "good",
        _ => "warn",
    };
    let count = |name, count: u64| cx.fill(name, &[("count", html! { strong { (count) } })]);
    html! {
        (show::notice(class, &html! {
            p { (count("import.created", report.created)) }
            @if report.already_there > 0 { p { (count("import.already_there", report.already_there)) } }
            @if report.refused > 0 { p { (count("import.refused", report.refused)) } }
        }))
        @if !report.refusals.is_empty() {
            section class="card" aria-labelledby="refusals" {
                h2 id="refusals" { (cx.t("import.refusals")) }
                table {
                    caption class="visually-hidden" { (cx.t("import.refusals")) }
                    thead {
                        tr {
                            th scope="col" { (cx.t("import.line")) }
                            th scope="col" { (cx.t("field.reason")) }
                            th scope="col" { (cx.t("import.code")) }
                        }
                    }
                    tbody {
                        @for refusal in &report.refusals {
                            tr {
                                th scope="row" { (refusal.line) }
                                td { (show::text(&refusal.reason)) }
                                td { code { (refusal.code.as_str()) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
