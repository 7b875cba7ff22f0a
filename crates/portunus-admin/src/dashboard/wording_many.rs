//! The English texts of operations on many keys, and of the import: the second part of the table.

pub(super) const WORDING: &[(&str, &str)] = &[
    // Operations on many keys.
    ("bulk.title", "Change many keys"),
    (
        "bulk.lead",
        "The keys are only counted first. Nothing is done before you confirm it.",
    ),
    ("bulk.selected", "The keys"),
    ("bulk.all", "All keys that you can list."),
    (
        "bulk.nothing",
        "No keys are chosen: choose some in the list, or filter it",
    ),
    (
        "bulk.mixed",
        "Chosen keys, filters and all keys exclude each other",
    ),
    ("bulk.unknown", "A chosen key does not exist"),
    (
        "bulk.view",
        "This view is not a filter: choose keys in the list",
    ),
    ("bulk.action", "Action"),
    ("bulk.no_action", "Choose one of the actions"),
    ("bulk.plan", "Change the plan"),
    (
        "bulk.disable_lead",
        "The keys are refused from the next request on, until you enable them again.",
    ),
    (
        "bulk.enable_lead",
        "The keys work again from the next request on.",
    ),
    (
        "bulk.revoke_lead",
        "Every program that uses one of the keys is refused from the next request on. This cannot be \
         undone.",
    ),
    ("bulk.plan_lead", "The keys get this plan and its limits."),
    ("bulk.plan_hint", "For a change of the plan only."),
    (
        "bulk.reason_hint",
        "For revoking only: for the audit; optional.",
    ),
    ("bulk.count", "Count the keys"),
    ("bulk.counted", "Keys that match now: {count}"),
    ("bulk.confirm_hint", "Type the number of the keys, {count}."),
    (
        "bulk.changed",
        "The number of the keys has changed since they were counted",
    ),
    ("bulk.wrong_number", "This is not the number of the keys"),
    ("bulk.start", "Start"),
    ("bulk.back", "Back"),
    ("operation.title", "Operation on many keys"),
    ("operation.progress", "Progress"),
    ("operation.counts", "The keys are being counted."),
    (
        "operation.runs",
        "The operation continues by itself: you can leave this page.",
    ),
    ("operation.ended", "The operation has ended."),
    ("operation.done", "Done"),
    ("operation.left", "Left"),
    ("operation.failed", "Failed"),
    ("operation.started_at", "Started"),
    ("operation.ended_at", "Ended"),
    ("operation.failures", "Keys that were not changed"),
    ("operation.refresh", "Refresh"),
    // The import.
    ("import.title", "Import keys"),
    (
        "import.lead",
        "Keys of another system are imported by their digests. Their secrets are not needed.",
    ),
    ("import.format", "Format"),
    ("import.csv", "CSV"),
    ("import.json", "Lines of JSON"),
    ("import.lines", "Lines"),
    (
        "import.lines_hint",
        "One key on each line. A line that is refused does not stop the others. Importing the same \
         lines again creates nothing twice.",
    ),
    ("import.no_format", "Choose one of the formats"),
    ("import.no_lines", "Paste at least one line"),
    ("import.submit", "Import"),
    ("import.example", "Formats"),
    (
        "import.example_csv",
        "CSV: the first line names the columns.",
    ),
    ("import.example_json", "JSON: an object on each line."),
    (
        "import.large",
        "For more than about 500 KB, use the management API (POST /import) or the command line \
         (portunus keys import).",
    ),
    ("import.created", "Keys that were created: {count}"),
    (
        "import.already_there",
        "Keys that were already there: {count}",
    ),
    ("import.refused", "Lines that were refused: {count}"),
    ("import.refusals", "Refused lines"),
    ("import.line", "Line"),
    ("import.code", "Code"),
];
