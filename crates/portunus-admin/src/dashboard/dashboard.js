// Copies a secret. Everything else works without this script.
"use strict";
for (const button of document.querySelectorAll("button[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  const result = document.getElementById("copy-result");
  button.hidden = false;
  button.addEventListener("click", async () => {
    let text = button.dataset.copied;
    try {
      await navigator.clipboard.writeText(source.textContent.trim());
    } catch {
      // Not allowed, or not a secure context: the operator copies the selection.
      text = button.dataset.failed;
      getSelection().selectAllChildren(source);
    }
    button.textContent = text;
    if (result) result.textContent = text;
  });
}
