//! The parts of forms: controls with label, hint and error, as they were entered.

use maud::{Markup, html};

use super::context::{Context, Form};
use super::layout;
use super::page::Page;
use crate::Fault;

/// A field of a form.
pub(super) struct Field<'a> {
    pub(super) name: &'static str,
    pub(super) label: &'a str,
    pub(super) hint: Option<Markup>,
    pub(super) required: bool,
}

/// A form as it was sent, or a new one.
#[derive(Clone, Copy)]
pub(super) struct Entered<'a>(pub(super) Option<&'a Form>);

impl<'a> Entered<'a> {
    /// Returns what was entered in a field, or what a new form contains.
    pub(super) fn value(self, name: &str, new: &'a str) -> &'a str {
        match self.0 {
            Some(form) => form.fields.entered(name).unwrap_or_default(),
            None => new,
        }
    }

    /// Returns whether an option is chosen.
    pub(super) fn has(self, name: &str, value: &str, new: bool) -> bool {
        match self.0 {
            Some(form) => form.fields.all(name).any(|chosen| chosen == value),
            None => new,
        }
    }

    pub(super) fn error(self, name: &str) -> Option<&'a str> {
        self.0.and_then(|form| form.problems.of(name))
    }
}

impl Field<'_> {
    /// Marks the field as mandatory.
    pub(super) fn required(mut self) -> Self {
        self.required = true;
        self
    }

    fn id(&self) -> String {
        id_of(self.name)
    }

    /// Returns the ids of what describes the control.
    fn described_by(&self, error: Option<&str>) -> Option<String> {
        let hint = self.hint.as_ref().map(|_| format!("{}-hint", self.id()));
        let error = error.map(|_| format!("{}-error", self.id()));
        let ids: Vec<_> = [error, hint].into_iter().flatten().collect();
        (!ids.is_empty()).then(|| ids.join(" "))
    }

    fn notes(&self, error: Option<&str>) -> Markup {
        html! {
            @if let Some(hint) = &self.hint {
                p class="hint" id={ (self.id()) "-hint" } { (hint) }
            }
            @if let Some(error) = error {
                p class="error" id={ (self.id()) "-error" } { (error) }
            }
        }
    }

    /// A line of text. `kind` is the type of the input.
    pub(super) fn line(&self, entered: Entered<'_>, kind: &str, new: &str) -> Markup {
        let error = entered.error(self.name);
        let invalid = error.map(|_| "true");
        let described = self.described_by(error);
        let value = match entered.0 {
            Some(_) => entered.value(self.name, ""),
            None => new,
        };
        html! {
            div class="field" {
                label for=(self.id()) { (self.label) }
                input id=(self.id()) name=(self.name) type=(kind) value=(value) dir="auto"
                    autocomplete="off" required[self.required]
                    aria-invalid=[invalid] aria-describedby=[described];
                (self.notes(error))
            }
        }
    }

    /// A secret, which is never shown again.
    pub(super) fn secret(&self, entered: Entered<'_>) -> Markup {
        let error = entered.error(self.name);
        let invalid = error.map(|_| "true");
        let described = self.described_by(error);
        html! {
            div class="field" {
                label for=(self.id()) { (self.label) }
                input id=(self.id()) name=(self.name) type="password" autocomplete="off"
                    required[self.required] aria-invalid=[invalid] aria-describedby=[described];
                (self.notes(error))
            }
        }
    }

    /// A text of several lines.
    pub(super) fn area(&self, entered: Entered<'_>, new: &str, code: bool) -> Markup {
        let error = entered.error(self.name);
        let invalid = error.map(|_| "true");
        let described = self.described_by(error);
        let value = match entered.0 {
            Some(_) => entered.value(self.name, ""),
            None => new,
        };
        let class = code.then_some("code");
        let (dir, checked) = match code {
            true => ("ltr", "false"),
            false => ("auto", "true"),
        };
        html! {
            div class="field" {
                label for=(self.id()) { (self.label) }
                textarea id=(self.id()) name=(self.name) rows="3" class=[class] dir=(dir)
                    spellcheck=(checked) aria-invalid=[invalid] aria-describedby=[described] {
                    // The parser drops a line break at the start.
                    "\n" (value)
                }
                (self.notes(error))
            }
        }
    }

    /// A choice of one of several options, each with its value and text.
    pub(super) fn choice(
        &self,
        entered: Entered<'_>,
        options: &[(String, String)],
        new: &str,
    ) -> Markup {
        let error = entered.error(self.name);
        let invalid = error.map(|_| "true");
        let described = self.described_by(error);
        html! {
            div class="field" {
                label for=(self.id()) { (self.label) }
                select id=(self.id()) name=(self.name)
                    aria-invalid=[invalid] aria-describedby=[described] {
                    @for (value, text) in options {
                        option value=(value) selected[entered.has(self.name, value, value == new)] {
                            (text)
                        }
                    }
                }
                (self.notes(error))
            }
        }
    }

    /// Boxes to tick, in one group, each with its value, its text, and whether a new form has it ticked.
    pub(super) fn boxes(&self, entered: Entered<'_>, options: &[(String, Markup, bool)]) -> Markup {
        let error = entered.error(self.name);
        let described = self.described_by(error);
        html! {
            fieldset class="field boxes" id=(self.id()) tabindex="-1" aria-describedby=[described] {
                legend { (self.label) }
                (self.notes(error))
                div class="options" {
                    @for (value, text, new) in options {
                        label class="option" {
                            input type="checkbox" name=(self.name) value=(value)
                                checked[entered.has(self.name, value, *new)];
                            span { (text) }
                        }
                    }
                }
            }
        }
    }
}

/// Returns the id of a field's control. Names of fields contain dots.
fn id_of(name: &str) -> String {
    format!("f-{}", name.replace('.', "-"))
}

/// A form with its hidden fields, and what is wrong with it above it.
pub(super) fn form(
    cx: &Context,
    page: Page,
    sent: Option<&Form>,
    hidden: &[(&str, &str)],
    content: &Markup,
) -> Markup {
    let action = match cx.query.get("id") {
        Some(id) => page.link_with([("id", id)]),
        None => page.link(),
    };
    let token = cx.token.as_ref().map(super::token::FormToken::text);
    html! {
        @if let Some(form) = sent { (summary(cx, form)) }
        form method="post" action=(action) class="main-form" {
            // Browsers restore the values of hidden fields when they reload a page.
            @if let Some(token) = token {
                input type="hidden" name="token" value=(token) autocomplete="off";
            }
            @for (name, value) in hidden {
                input type="hidden" name=(name) value=(value) autocomplete="off";
            }
            (content)
        }
    }
}

/// What is wrong with a form, with links to the fields.
pub(super) fn summary(cx: &Context, form: &Form) -> Markup {
    let problems = &form.problems;
    if problems.is_stale() {
        return html! {
            div class="notice warn" role="alert" tabindex="-1" autofocus {
                p { strong { (cx.t("form.stale")) } }
                p { (cx.t("form.stale_hint")) }
            }
        };
    }
    if problems.is_used_up() {
        let fault = Fault::bad(cx.t("form.used_up"));
        return layout::reason(&cx.frame, &fault);
    }
    html! {
        @if let Some(fault) = problems.refusal() { (layout::reason(&cx.frame, fault)) }
        @if !problems.fields().is_empty() {
            div class="notice bad" role="alert" tabindex="-1" autofocus {
                p { strong { (cx.t("form.wrong")) } }
                ul {
                    @for (name, why) in problems.fields() {
                        li {
                            a href={ "#" (id_of(name)) } {
                                @if let Some(label) = label_of(name) { (cx.t(label)) ": " }
                                (why)
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Returns the text that names a field.
fn label_of(name: &str) -> Option<&'static str> {
    let labels = [
        ("name", "field.name"),
        ("description", "field.description"),
        ("kind", "field.kind"),
        ("environment", "field.environment"),
        ("owner", "field.owner"),
        ("owner.tenant_id", "field.tenant"),
        ("owner.user_id", "field.owner"),
        ("owner.user_email", "field.email"),
        ("scopes", "field.scopes"),
        ("access", "field.access"),
        ("workspaces", "field.workspaces"),
        ("allowed_ips", "field.allowed_ips"),
        ("rate_limit_config", "field.limits"),
        ("plan", "field.plan"),
        ("expires_at", "field.expires"),
        ("expires_on", "field.expires_on"),
        ("not_before", "field.not_before"),
        ("metadata", "field.metadata"),
        ("grace_seconds", "field.grace"),
        ("reason", "field.reason"),
        ("confirm", "field.confirm"),
        ("key", "explain.key"),
        ("require", "explain.require"),
        ("method", "explain.method"),
        ("ip", "explain.ip"),
        ("workspace", "explain.workspace"),
        ("key_id", "events.key_id"),
        ("actor", "events.party"),
        ("outcome", "events.outcome"),
        ("action", "events.action"),
        ("filter", "bulk.selected"),
        ("format", "import.format"),
        ("lines", "import.lines"),
        ("head", "chain.head"),
    ];
    let found = labels.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text)
}

/// The buttons at the end of a form. `class` says what the action means.
pub(super) fn buttons(text: &str, class: &str, cancel: (&str, &str)) -> Markup {
    let (reference, cancel) = cancel;
    html! {
        div class="buttons" {
            button type="submit" class=(class) { (text) }
            a class="button quiet" href=(reference) { (cancel) }
        }
    }
}
