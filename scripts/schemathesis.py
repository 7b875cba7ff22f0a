"""Tests the management API of `esign` with schemathesis against the document that it serves.

`scripts/measure schemathesis` runs it by hand. For each profile it starts the process on a free
port with its records in memory, and runs all checks of schemathesis in all its phases: `coverage`
walks along every bound that the document states, `fuzzing` draws requests that keep to the document
and requests that do not, `stateful` goes on with what earlier answers returned.

    PROFILES="allsign yousign"  only these profiles; all five by default
    ESIGN_BINARY=PATH           use this binary; `cargo build -p esign` by default
    EXAMPLES=300 SEED=1         requests per operation and phase, and the seed they are drawn from

The exit code is 1 if there is a finding that `EXPLAINED` does not cover. Everything that is written
(the virtual environment, logs, reports) is in a temporary folder, which is removed at the end.

The file has two halves: the program, and hooks. schemathesis loads the file a second time for them.
A finding with an explanation is dropped there, so that it neither ends a phase early nor hides
another finding of the same operation.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path
from typing import NamedTuple

# Pinned, because each release draws other requests.
RELEASE = "schemathesis==4.32.5"

PROFILES = ["allsign", "insigner", "yousign", "iusign", "dropbox-sign"]


class Explained(NamedTuple):
    """Valid requests that are refused, for a reason that no schema can express."""

    operation: str
    status: int
    # Searched for in the `detail` of the answer, so this has to follow the wording there.
    detail: str
    why: str


NEW_KEY = r"^POST /(keys|import)$"
CHANGE = r"^PATCH /keys/{id}$"
ROTATE = r"^POST /keys/{id}/rotate$"
USAGE = r"^GET /keys/{id}/usage$"

EXPLAINED = [
    Explained(
        r"", 412, r"",
        "A precondition is evaluated against the stored version. Every entity tag is valid.",
    ),
    Explained(
        rf"^POST /keys$|{ROTATE}", 422, r"^Idempotency-Key: .*different request",
        "Depends on the requests that used this idempotency key before.",
    ),
    Explained(
        rf"{NEW_KEY}|{CHANGE}", 422, r"^expires_at: .*(past|future)",
        "Depends on the clock.",
    ),
    Explained(
        rf"{NEW_KEY}|{CHANGE}", 422, r"^not_before: .*before expires_at",
        "Compares two members, one of which may be stored. JSON Schema compares none.",
    ),
    Explained(
        USAGE, 400, r"^from, to: ",
        "Compares two parameters, and the clock where `to` is absent.",
    ),
    Explained(
        USAGE, 400, r'"(1970-01-01|9999-12-31)T.* is out of range: ',
        "On the first and the last day, whether a time is in range depends on its offset. A "
        "pattern cannot convert it to UTC.",
    ),
    Explained(
        rf"{NEW_KEY}|{CHANGE}", 422, r'"(1970-01-01|9999-12-31)T.* is out of range: ',
        "The same in a body.",
    ),
    Explained(
        rf"{NEW_KEY}|{CHANGE}", 422, r"^plan: must be one of ",
        "The demo's own rule (`HostRules`), which is evaluated for each request.",
    ),
    Explained(
        rf"{NEW_KEY}|{CHANGE}", 422, r"^workspaces: unknown workspace ",
        "The demo's own rule (`HostRules`): the tenant's workspaces are data.",
    ),
    Explained(
        CHANGE, 422, r"unknown field `requests_per_[a-z0-9_-]{1,32}`",
        "A key may have windows besides minute and hour. Only those that it has can be changed.",
    ),
    Explained(
        rf"{NEW_KEY}|{CHANGE}", 422, r"integer .*more than 64 bits",
        "JSON Schema sees the value of a number, not its digits: in `metadata`, `1e30` is accepted "
        "as a fraction is, and the same number written as an integer is refused.",
    ),
    Explained(
        rf"{NEW_KEY}|{CHANGE}", 422, r"^metadata: .*16 KiB",
        "Bounds the serialized length. JSON Schema bounds the number of members only.",
    ),
    Explained(
        CHANGE, 422, r"^scopes: API keys of this API have no scopes",
        "Depends on the kind of the stored key.",
    ),
    Explained(
        CHANGE, 422, r"^expires_at: (API keys of this API|an access token|a rotated key)",
        "Depends on the kind of the stored key, and on whether it was rotated.",
    ),
    Explained(
        ROTATE, 422, r"^kind: access tokens",
        "Depends on the kind of the stored key.",
    ),
]


# The program


def main() -> int:
    # Leave through the `finally` clauses and the temporary folder, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    profiles = os.environ.get("PROFILES", "").split() or PROFILES
    if unknown := sorted(set(profiles) - set(PROFILES)):
        print(f"PROFILES: unknown {', '.join(unknown)}: expected {', '.join(PROFILES)}")
        return 2
    with tempfile.TemporaryDirectory(prefix="schemathesis-") as folder:
        folder = Path(folder)
        binary = built()
        command = installed(folder / "venv")
        failed = [name for name in profiles if not passes(name, binary, command, folder / name)]
    if failed:
        print(f"\nfindings without an explanation: {', '.join(failed)}")
    return int(bool(failed))


def built() -> Path:
    """The binary of `esign`."""
    if given := os.environ.get("ESIGN_BINARY"):
        return Path(given).resolve()
    build = ["cargo", "build", "-p", "esign", "--bin", "esign", "--message-format=json"]
    messages = subprocess.run(build, check=True, stdout=subprocess.PIPE, text=True).stdout
    executables = [json.loads(line).get("executable") for line in messages.splitlines()]
    return Path(next(filter(None, reversed(executables))))


def installed(folder: Path) -> Path:
    """The command `schemathesis`, in a virtual environment of its own."""
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", RELEASE], check=True)
    return folder / "bin" / "schemathesis"


def passes(profile: str, binary: Path, command: Path, folder: Path) -> bool:
    """Tests a profile and prints its findings. Returns whether all of them are explained."""
    folder.mkdir()
    began = time.monotonic()
    serve = [binary, "--ready-json", "--listen", "127.0.0.1:0", "--store", "memory"]
    with open(folder / "esign.log", "w") as log:
        server = subprocess.Popen(
            [*serve, "--profile", profile], stdout=subprocess.PIPE, stderr=log, cwd=folder
        )
        try:
            ready = server.stdout.readline()
            tested = test(json.loads(ready), command, folder) if ready else None
        finally:
            server.terminate()
            stopped = server.wait()
    findings = read(folder / "findings")
    print(f"\n{profile}: {len(findings)} findings, {time.monotonic() - began:.0f} seconds")
    # Those without an explanation first.
    for (why, *what), (count, request) in sorted(findings.items()):
        print(f"  {'explained' if why else 'NEW'}, {count} times: {' · '.join(what)}")
        print(f"      {why or request}")
    new = any(not why for why, *_ in findings)
    if stopped != 0:
        print(f"  esign ended with {stopped}:")
        print((folder / "esign.log").read_text()[-4000:])
    # A failure that is no finding about a request, such as a document that cannot be read.
    if tested and not new:
        print(f"  schemathesis ended with {tested}:")
        print((folder / "output").read_text()[-4000:])
    return not new and stopped == 0 and tested == 0


def test(ready: dict, command: Path, folder: Path) -> int:
    """Runs schemathesis against a process. Returns its exit code."""
    # The owner makes all requests. The outsider, who owns another tenant, must not see what the
    # owner sees (`object_level_authorization`).
    bearer = {name: f"Bearer {ready['operators'][name]}" for name in ("owner", "outsider")}
    people = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": value}]}
        for name, value in bearer.items()
    ]
    (folder / "people.json").write_text(json.dumps({"auth": people}))
    (folder / "schemathesis.toml").write_text(CONFIG)
    # The document is for operators only, and schemathesis would fetch it without a token. From a
    # file, it also tests the operation that returns the document.
    url = ready["admin_url"]
    ask = urllib.request.Request(f"{url}/openapi.json", headers={"Authorization": bearer["owner"]})
    with urllib.request.urlopen(ask) as document:
        (folder / "openapi.json").write_bytes(document.read())
    run = [command, "--config-file", "schemathesis.toml", "run", "openapi.json", "--url", url]
    run += ["--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"]
    run += ["--max-examples", os.environ.get("EXAMPLES", "300")]
    run += ["--seed", os.environ.get("SEED", "1"), "--no-color"]
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": str(Path(__file__).resolve()),
        "SCHEMATHESIS_FINDINGS": str(folder / "findings"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with open(folder / "output", "w") as output:
        return subprocess.run(
            run, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        ).returncode


CONFIG = """
# A finding must not hide the next one of the same operation.
continue-on-failure = true
# An operator may make 6000 requests a minute.
rate-limit = "auto"

[cache]
enabled = false

[generation]
database = "none"
# Requests with invented tokens would soon be answered by 429. `ignored_auth` still sends one to
# each operation, and one without a token.
with-security-parameters = false

[auth.wfc]
path = "people.json"
user = "owner"
peers = ["owner", "outsider"]
"""


def read(path: Path) -> dict:
    """The findings that the hooks wrote, each with its number and its shortest request."""
    findings = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        *finding, request = json.loads(line)
        count, shortest = findings.get(tuple(finding), (0, request))
        findings[tuple(finding)] = (count + 1, min(shortest, request, key=len))
    return findings


# The hooks


def explained(operation: str, status: int, detail: str) -> str:
    """Why no schema can express this refusal; empty where one could."""
    for one in EXPLAINED:
        if status == one.status and re.search(one.operation, operation):
            if re.search(one.detail, detail, re.DOTALL):
                return one.why
    return ""


def filter_failure(context, failure, case, response) -> bool:
    """Notes a finding. Returns whether schemathesis reports it."""
    try:
        detail = str(response.json().get("detail", ""))
    except (ValueError, AttributeError):
        detail = ""
    operation = case.operation.label
    # Only the refusal of a valid request can have an explanation.
    refused = type(failure).__name__ == "RejectedPositiveData"
    why = explained(operation, response.status_code, detail) if refused else ""
    # One finding for each wording, whatever values it names.
    detail = re.sub(r'"(\\.|[^"\\])*"', '"…"', detail)
    detail = re.sub(r"`[^`]*`+|U\+[0-9A-F]+|(?<= no workspace ).*", "…", detail)
    detail = re.sub(r"(?<=^environment: )\S+", "…", detail)
    detail = re.sub(r"(?<=[ :])-?[0-9]+(?![-0-9:.])", "…", detail)
    what = [operation, failure.title, str(response.status_code), detail or failure.message]
    with open(os.environ["SCHEMATHESIS_FINDINGS"], "a") as findings:
        findings.write(json.dumps([why, *what, case.as_curl_command()]) + "\n")
    return not why


if __name__ == "__main__":
    sys.exit(main())
else:
    import schemathesis

    schemathesis.hook(filter_failure)
